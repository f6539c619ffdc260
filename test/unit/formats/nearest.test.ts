import fc from "fast-check";
import { expect, test } from "vitest";
import { editDistance, nearest } from "../../../src/formats/nearest.ts";

const word = fc.string({ unit: fc.constantFrom("a", "b", "c", "_"), maxLength: 8 });

test("the distance is 0 only between equal words, and is symmetric", () => {
  fc.assert(
    fc.property(word, word, (a, b) => {
      expect(editDistance(a, b) === 0).toBe(a === b);
      expect(editDistance(a, b)).toBe(editDistance(b, a));
      expect(editDistance(a, b)).toBeLessThanOrEqual(Math.max(a.length, b.length));
    }),
  );
});

test("one edit of a long word is always found", () => {
  fc.assert(
    fc.property(fc.nat(9), fc.constantFrom("drop", "double", "swap", "change"), (at, edit) => {
      const target = "learning_rate";
      const [head, tail] = [target.slice(0, at), target.slice(at)];
      const typo = {
        drop: head + tail.slice(1),
        double: head + tail[0] + tail,
        swap: head + (tail[1] ?? "") + tail[0] + tail.slice(2),
        change: `${head}x${tail.slice(1)}`,
      }[edit];
      expect(nearest(typo, ["lr_scheduler_type", "learning_rate", "weight_decay"])).toBe(target);
    }),
  );
});

test("a word that is like nothing gets no suggestion", () => {
  expect(nearest("banana", ["learning_rate", "seed"])).toBeUndefined();
  expect(nearest("xy", ["ab"])).toBeUndefined();
  expect(nearest("seed", [])).toBeUndefined();
});

test("case does not count", () => {
  expect(nearest("Down_Proj", ["up_proj", "down_proj"])).toBe("down_proj");
});
