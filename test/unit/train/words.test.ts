import { expect, test } from "vitest";
import { describeLosses, worse } from "../../../src/phases/train/words.ts";

const row = (step: number, loss: number | null) => ({ step, loss, rows: 4, target_tokens: 10 });

test("where the losses began and ended", () => {
  expect(describeLosses({ first: 1.5, last: 0.25, held_out: [] })).toBe("loss 1.500 to 0.250");
  const held_out = [row(0, 1.25), row(4, 0.5)];
  expect(describeLosses({ first: 1, last: null, held_out })).toBe("loss 1.000 to not finite; held out 1.250 to 0.500");
  expect(describeLosses({ first: null, last: null, held_out: [] })).toBe("no step was made");
});

test("a loss that ended far above where it began is warned of", () => {
  const warning = "the loss ended far above where it began: the run may have diverged";
  expect(worse({ first: 1, last: 12, held_out: [] })).toBe(warning);
  expect(worse({ first: 1, last: 0.5, held_out: [row(0, 1), row(4, 2)] })).toBe(warning);
  expect(worse({ first: 1, last: 1.2, held_out: [row(0, 1)] })).toBeUndefined();
  expect(worse({ first: null, last: null, held_out: [] })).toBeUndefined();
});
