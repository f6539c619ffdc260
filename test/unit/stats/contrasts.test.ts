import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  type Contrast,
  type ContrastEstimate,
  minimumDetectableDifference,
  type PairedQuestion,
  pairedContrast,
} from "../../../src/stats/contrasts.ts";
import { benjaminiHochberg } from "../../../src/stats/multiple.ts";
import { binomial, pick, seededRandom } from "./random.ts";

function contrastOf(estimate: ContrastEstimate): Contrast {
  if (estimate.kind === "no_data") throw new Error("expected a contrast, got no data");
  return estimate;
}

/** Questions with `n` responses each. */
const answered = (successes: readonly number[], n: number): PairedQuestion[] =>
  successes.map((count, index) => ({ question: `q${index}`, successes: count, n }));

describe("pairedContrast", () => {
  test("is the paired t test of the differences", () => {
    // t.test(c(.5,.3,.1,.4) - c(.1,.1,0,.2), mu = 0): mean .225, se .062915, t = 3.5762, df = 3
    const contrast = contrastOf(pairedContrast(answered([5, 3, 1, 4], 10), answered([1, 1, 0, 2], 10)));
    expect(contrast.difference).toBeCloseTo(0.225, 12);
    expect(contrast.standard_error).toBeCloseTo(0.0629153, 6);
    expect(contrast.ci_low).toBeCloseTo(0.225 - 3.182446 * 0.0629153, 6);
    expect(contrast.ci_high).toBeCloseTo(0.225 + 3.182446 * 0.0629153, 6);
    expect(contrast.p_value).toBeCloseTo(0.0374, 3);
    expect(contrast).toMatchObject({ unit: "question", n_questions: 4, sample_correlation: null, n_matched: 0 });
  });

  test("leaves out what only one model answered", () => {
    const a = [...answered([5, 3], 10), { question: "only-a", successes: 10, n: 10 }];
    const b = [...answered([1, 1], 10), { question: "only-b", successes: 0, n: 10 }];
    expect(contrastOf(pairedContrast(a, b)).n_questions).toBe(2);
    expect(pairedContrast(a.slice(2), b.slice(2))).toEqual({ kind: "no_data" });
  });

  test("two models at zero everywhere differ by 0 with an interval that has width, and p = 1", () => {
    const contrast = contrastOf(pairedContrast(answered([0, 0, 0, 0], 25), answered([0, 0, 0, 0], 25)));
    expect(contrast).toMatchObject({ difference: 0, p_value: 1 });
    expect(contrast.ci_low).toBeLessThan(0);
    expect(contrast.ci_high).toBeGreaterThan(0);
  });

  test("all against nothing has the smallest p value that the questions can give", () => {
    const contrast = contrastOf(pairedContrast(answered([9, 9, 9, 9, 9], 9), answered([0, 0, 0, 0, 0], 9)));
    expect(contrast).toMatchObject({ difference: 1, ci_high: 1, p_value: 1 / 16 });
    expect(contrast.ci_low).toBeLessThan(1);
  });

  test("equal differences are equal whatever rounding says", () => {
    const contrast = contrastOf(pairedContrast(answered([3, 2, 7], 10), answered([1, 0, 5], 10)));
    expect(contrast.p_value).toBe(0.25);
  });

  test("one shared question is a test over its responses", () => {
    const contrast = contrastOf(pairedContrast(answered([56], 70), answered([48], 80)));
    // Newcombe 1998, table II, method 10: 56/70 - 48/80 is 0.20 (0.0524 to 0.3339)
    expect(contrast.ci_low).toBeCloseTo(0.0524, 4);
    expect(contrast.ci_high).toBeCloseTo(0.3339, 4);
    expect(contrast.unit).toBe("response");
    expect(contrast.p_value).toBeCloseTo(0.0084, 3);
  });

  test("finds the correlation of matched samples within questions", () => {
    const indicators = (bits: string) => new Map([...bits].map((bit, sample) => [`${sample}`, bit === "1"]));
    const a = [{ question: "q", successes: 2, n: 4, indicators: indicators("1100") }];
    const same = contrastOf(pairedContrast(a, a));
    expect(same).toMatchObject({ sample_correlation: 1, n_matched: 4 });
    const opposite = [{ question: "q", successes: 2, n: 4, indicators: indicators("0011") }];
    expect(contrastOf(pairedContrast(a, opposite)).sample_correlation).toBe(-1);
    const never = [{ question: "q", successes: 0, n: 4, indicators: indicators("0000") }];
    expect(contrastOf(pairedContrast(a, never)).sample_correlation).toBeNull();
  });

  test("contains its difference, turns its sign with its sides, and has a p value in [0, 1]", () => {
    const n = 12;
    const successes = fc.array(fc.integer({ min: 0, max: n }), { minLength: 1, maxLength: 9 });
    fc.assert(
      fc.property(successes, successes, (first, second) => {
        const [a, b] = [answered(first, n), answered(second, n)];
        const contrast = contrastOf(pairedContrast(a, b));
        expect(contrast.ci_low).toBeGreaterThanOrEqual(-1);
        expect(contrast.ci_high).toBeLessThanOrEqual(1);
        expect(contrast.ci_low).toBeLessThanOrEqual(contrast.difference);
        expect(contrast.ci_high).toBeGreaterThanOrEqual(contrast.difference);
        expect(contrast.ci_high - contrast.ci_low).toBeGreaterThan(0);
        expect(contrast.p_value).toBeGreaterThanOrEqual(0);
        expect(contrast.p_value).toBeLessThanOrEqual(1);
        expect(contrast.minimum_detectable_difference).toBeGreaterThan(0);
        const turned = contrastOf(pairedContrast(b, a));
        expect(turned.difference).toBeCloseTo(-contrast.difference, 12);
        expect(turned.ci_low).toBeCloseTo(-contrast.ci_high, 9);
        expect(turned.p_value).toBeCloseTo(contrast.p_value, 12);
      }),
      { numRuns: 200 },
    );
  });

  test("refuses counts that cannot be", () => {
    expect(() => pairedContrast(answered([11], 10), answered([1], 10))).toThrow(RangeError);
  });
});

describe("in simulation", () => {
  const BASE_RATES = [0.05, 0.1, 0.2, 0.4, 0.6];
  const SHIFTS = [-0.05, 0, 0.1, 0.2, 0.25];
  const TRUE_SHIFT = 0.1;

  function simulate(shifts: readonly number[], runs: number): Contrast[] {
    const random = seededRandom(7);
    const n = 25;
    return Array.from({ length: runs }, () => {
      const base = Array.from({ length: 16 }, () => pick(random, BASE_RATES));
      const a = base.map((rate) => binomial(random, n, rate + pick(random, shifts)));
      const b = base.map((rate) => binomial(random, n, rate));
      return contrastOf(pairedContrast(answered(a, n), answered(b, n)));
    });
  }

  test("the interval covers the mean difference, questions differing in level and in shift", () => {
    const contrasts = simulate(SHIFTS, 2000);
    const covered = contrasts.filter(({ ci_low, ci_high }) => ci_low <= TRUE_SHIFT && TRUE_SHIFT <= ci_high).length;
    expect(covered / contrasts.length).toBeGreaterThan(0.935);
    expect(covered / contrasts.length).toBeLessThan(0.97);
  });

  test("p < 0.05 is seen in one run of twenty when nothing differs", () => {
    const contrasts = simulate([0], 2000);
    const rejected = contrasts.filter(({ p_value }) => p_value < 0.05).length / contrasts.length;
    expect(rejected).toBeGreaterThan(0.03);
    expect(rejected).toBeLessThan(0.065);
  });

  test("a shift of the minimum detectable difference is found in four runs of five", () => {
    const contrasts = simulate(SHIFTS, 2000);
    const typical = contrasts.map((contrast) => contrast.standard_error).sort((x, y) => x - y)[1000] ?? Number.NaN;
    const wanted = minimumDetectableDifference(typical, 15);
    const moved = simulate(
      SHIFTS.map((shift) => shift - TRUE_SHIFT + wanted),
      2000,
    );
    const found = moved.filter(({ p_value }) => p_value < 0.05).length / moved.length;
    expect(found).toBeGreaterThan(0.74);
    expect(found).toBeLessThan(0.86);
  });
});

describe("benjaminiHochberg", () => {
  test("agrees with p.adjust(method = 'BH') of R", () => {
    const adjusted = benjaminiHochberg([0.01, 0.04, 0.03, 0.005]);
    for (const [index, expected] of [0.02, 0.04, 0.04, 0.02].entries()) {
      expect(adjusted[index]).toBeCloseTo(expected, 12);
    }
    expect(benjaminiHochberg([])).toEqual([]);
    expect(benjaminiHochberg([0.3])).toEqual([0.3]);
  });

  test("never makes a p value smaller or larger than 1, and keeps their order", () => {
    fc.assert(
      fc.property(fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 20 }), (p) => {
        const adjusted = benjaminiHochberg(p);
        const byValue = p.map((value, index) => ({ value, q: adjusted[index] ?? Number.NaN }));
        byValue.sort((x, y) => x.value - y.value || x.q - y.q);
        for (const [index, { value, q }] of byValue.entries()) {
          expect(q).toBeGreaterThanOrEqual(value);
          expect(q).toBeLessThanOrEqual(1);
          expect(q).toBeGreaterThanOrEqual(byValue[index - 1]?.q ?? 0);
        }
      }),
    );
  });
});
