import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  criticalValue,
  normalQuantile,
  normalTail,
  studentQuantile,
  studentTail,
} from "../../../src/stats/quantiles.ts";

describe("normal", () => {
  // qnorm() of R 4.3
  test.each([
    [0.975, 1.959963984540054],
    [0.95, 1.6448536269514722],
    [0.8, 0.8416212335729143],
    [0.999, 3.090232306167813],
    [1e-6, -4.753424308822899],
  ])("quantile at %d is %d", (p, expected) => expect(normalQuantile(p)).toBeCloseTo(expected, 11));

  // pnorm(x, lower.tail = FALSE) of R 4.3
  test.each([
    [0, 0.5],
    [1, 0.15865525393145707],
    [2, 0.022750131948179195],
    [3, 0.0013498980316300946],
    [8, 6.220960574271784e-16],
  ])("tail beyond %d is %d", (x, expected) => expect(normalTail(x) / expected).toBeCloseTo(1, 11));
});

describe("Student's t", () => {
  // qt() of R 4.3
  test.each([
    [0.975, 1, 12.706204736174698],
    [0.975, 2, 4.302652729749464],
    [0.975, 7, 2.3646242515927844],
    [0.975, 30, 2.0422724563012373],
    [0.8, 7, 0.8960296443137515],
    [0.995, 4, 4.604094871415897],
    [0.975, 1e6, 1.9599663],
  ])("quantile at %d with %d degrees of freedom is %d", (p, df, expected) =>
    expect(studentQuantile(p, df) / expected).toBeCloseTo(1, 7),
  );

  test("has the tail of a Cauchy at one degree of freedom", () => {
    for (const x of [0, 0.1, 1, 10, 1000]) {
      expect(studentTail(x, 1)).toBeCloseTo(x === 0 ? 0.5 : Math.atan(1 / x) / Math.PI, 12);
    }
  });

  test("inverts its own tail, mirrors about one half, and is never inside the normal", () => {
    fc.assert(
      fc.property(fc.double({ min: 0.501, max: 0.9999, noNaN: true }), fc.integer({ min: 1, max: 500 }), (p, df) => {
        const x = studentQuantile(p, df);
        expect(1 - studentTail(x, df)).toBeCloseTo(p, 9);
        expect(studentQuantile(1 - p, df)).toBeCloseTo(-x, 6);
        expect(x).toBeGreaterThan(normalQuantile(p) - 1e-9);
      }),
      { numRuns: 60 },
    );
  });
});

test("the critical value of 95 % is the familiar one", () => {
  expect(criticalValue(0.95)).toBeCloseTo(1.96, 4);
  expect(criticalValue(0.95, 7)).toBeCloseTo(2.3646, 4);
});

test.each([0, 1, -1, Number.NaN])("there is no quantile at %d", (p) =>
  expect(() => normalQuantile(p)).toThrow(RangeError),
);
