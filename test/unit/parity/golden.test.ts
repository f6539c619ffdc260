import { expect, test } from "vitest";
import { compareGolden } from "../../../src/phases/parity/golden.ts";

test("equal ids have no difference", () => {
  expect(compareGolden([[1, 2], []], [[1, 2], []])).toBeNull();
});

test("names the first difference", () => {
  expect(compareGolden([[1], [1, 2]], [[1], [1, 3]])).toBe("conversation 1, token 1: expected 2, got 3");
  expect(compareGolden([[1]], [[1, 2]])).toBe("conversation 0, token 1: expected the end, got 2");
  expect(compareGolden([[1, 2]], [[1]])).toBe("conversation 0, token 1: expected 2, got the end");
  expect(compareGolden([[1]], [])).toBe("expected 1 conversations, got 0");
});
