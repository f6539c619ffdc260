import fc from "fast-check";
import { expect, test } from "vitest";
import { editDistance, findNearest } from "../../../src/judges/rule/similarity.ts";

const word = fc.string({ maxLength: 12 });
const FAR = 1000;

test("counts edits", () => {
  expect(editDistance("kitten", "sitting", FAR)).toBe(3);
  expect(editDistance("", "abc", FAR)).toBe(3);
});

test("is a metric", () => {
  fc.assert(
    fc.property(word, word, word, (a, b, c) => {
      expect(editDistance(a, a, FAR)).toBe(0);
      expect(editDistance(a, b, FAR)).toBe(editDistance(b, a, FAR));
      expect(editDistance(a, c, FAR)).toBeLessThanOrEqual(editDistance(a, b, FAR) + editDistance(b, c, FAR));
    }),
  );
});

test("gives up one past the limit, and only past it", () => {
  fc.assert(
    fc.property(word, word, fc.nat(8), (a, b, limit) => {
      expect(editDistance(a, b, limit)).toBe(Math.min(editDistance(a, b, FAR), limit + 1));
    }),
  );
});

test("finds the nearest candidate within the tolerance", () => {
  expect(findNearest("wash it wel", ["wash it", "wash it well"], 0.2)).toBe("wash it well");
  expect(findNearest("something else", ["wash it", "wash it well"], 0.2)).toBeUndefined();
  expect(findNearest("same", ["same"], 0)).toBe("same");
});
