import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { clusterRate, type Estimate, type QuestionCount, type Rate, wilson } from "../../../src/stats/rates.ts";
import { binomial, pick, seededRandom } from "./random.ts";

function rateOf(estimate: Estimate): Rate {
  if (estimate.kind === "no_data") throw new Error("expected a rate, got no data");
  return estimate;
}

const count = fc
  .integer({ min: 0, max: 40 })
  .chain((n) => fc.record({ successes: fc.integer({ min: 0, max: n }), n: fc.constant(n) }));
const questions = fc.array(count, { minLength: 1, maxLength: 12 }).filter((all) => all.some(({ n }) => n > 0));

describe("wilson", () => {
  // prop.test(x, n, correct = FALSE) of R 4.3
  test.each([
    [10, 50, 0.1124375, 0.3303713],
    [0, 50, 0, 0.0713476],
    [50, 50, 0.9286524, 1],
    [1, 2, 0.0945312, 0.9054688],
  ])("%d of %d", (successes, n, low, high) => {
    const { ci_low, ci_high } = rateOf(wilson(successes, n));
    expect(ci_low).toBeCloseTo(low, 6);
    expect(ci_high).toBeCloseTo(high, 6);
  });

  test("has no data at n = 0", () => expect(wilson(0, 0)).toEqual({ kind: "no_data" }));

  test.each([
    [3, 2],
    [-1, 2],
    [0.5, 2],
    [Number.NaN, 2],
  ])("refuses %d of %d", (successes, n) => expect(() => wilson(successes, n)).toThrow(RangeError));
});

describe("clusterRate", () => {
  test("pools the questions and counts them", () => {
    const estimate = rateOf(
      clusterRate([
        { successes: 5, n: 10 },
        { successes: 0, n: 30 },
        { successes: 0, n: 0 },
      ]),
    );
    expect(estimate).toMatchObject({ successes: 5, n: 40, rate: 0.125, unit: "question", n_questions: 2 });
  });

  test("the design effect is Cochran's, worked by hand", () => {
    // rate 1/2, residuals +5 and -5: v = 2 * 50 / 400 = 1/4 against (1/4) / 20, so twenty times.
    const estimate = rateOf(
      clusterRate([
        { successes: 10, n: 10 },
        { successes: 0, n: 10 },
      ]),
    );
    expect(estimate.design_effect).toBeCloseTo(20, 12);
    expect(estimate.effective_n).toBeCloseTo(1, 12);
  });

  test("one question is a plain Wilson interval that says so", () => {
    expect(clusterRate([{ successes: 10, n: 50 }])).toEqual(wilson(10, 50));
    expect(rateOf(clusterRate([{ successes: 10, n: 50 }])).unit).toBe("response");
  });

  test("nobody answered: no data", () => {
    expect(clusterRate([])).toEqual({ kind: "no_data" });
    expect(clusterRate([{ successes: 0, n: 0 }])).toEqual({ kind: "no_data" });
  });

  test.each([0, 20])("%d of 20 in every question still has an interval wider than Wilson's", (successes) => {
    const estimate = rateOf(clusterRate(Array.from({ length: 8 }, () => ({ successes, n: 20 }))));
    const plain = rateOf(wilson(8 * successes, 160));
    expect(estimate.design_effect).toBe(1);
    expect(estimate.ci_high - estimate.ci_low).toBeGreaterThan(plain.ci_high - plain.ci_low);
  });

  test("contains its rate and the plain Wilson interval, within [0, 1]", () => {
    fc.assert(
      fc.property(questions, (counts) => {
        const estimate = rateOf(clusterRate(counts));
        const plain = rateOf(wilson(estimate.successes, estimate.n));
        expect(estimate.ci_low).toBeGreaterThanOrEqual(0);
        expect(estimate.ci_high).toBeLessThanOrEqual(1);
        expect(estimate.ci_low).toBeLessThanOrEqual(estimate.rate);
        expect(estimate.ci_high).toBeGreaterThanOrEqual(estimate.rate);
        expect(estimate.ci_high - estimate.ci_low).toBeGreaterThan(0);
        expect(estimate.ci_low).toBeLessThanOrEqual(plain.ci_low + 1e-12);
        expect(estimate.ci_high).toBeGreaterThanOrEqual(plain.ci_high - 1e-12);
        expect(estimate.effective_n * estimate.design_effect).toBeCloseTo(estimate.n, 8);
      }),
      { numRuns: 200 },
    );
  });

  test("mirrors when the property is turned around, and does not depend on the order of the questions", () => {
    fc.assert(
      fc.property(questions, (counts) => {
        const estimate = rateOf(clusterRate(counts));
        const mirrored = rateOf(clusterRate(counts.map(({ successes, n }) => ({ successes: n - successes, n }))));
        expect(mirrored.ci_low).toBeCloseTo(1 - estimate.ci_high, 9);
        expect(mirrored.ci_high).toBeCloseTo(1 - estimate.ci_low, 9);
        const reversed = rateOf(clusterRate([...counts].reverse()));
        expect(reversed.ci_low).toBeCloseTo(estimate.ci_low, 12);
      }),
      { numRuns: 200 },
    );
  });

  test("a higher level gives an interval that contains the lower one", () => {
    fc.assert(
      fc.property(questions, (counts) => {
        const [narrow, wide] = [rateOf(clusterRate(counts, 0.8)), rateOf(clusterRate(counts, 0.99))];
        expect(wide.ci_low).toBeLessThanOrEqual(narrow.ci_low);
        expect(wide.ci_high).toBeGreaterThanOrEqual(narrow.ci_high);
      }),
      { numRuns: 100 },
    );
  });
});

/**
 * EM rates per question of the 14B medical organism, which spread as real ones do.
 * Source: released adapters of arXiv 2506.11613, re-evaluated with 8 questions x 50 responses.
 */
const SPREAD_RATES = [0.66, 0.48, 0.36, 0.06, 0.04, 0.04, 0.04, 0];
const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;

interface Design {
  rates: readonly number[];
  n_questions: number;
  n: number;
  runs?: number;
}

/** Share of simulated evals whose interval contains the true rate over all questions like these. */
function coverage({ rates, n_questions, n, runs = 2000 }: Design, interval: (counts: QuestionCount[]) => Estimate) {
  const random = seededRandom(20_260_101);
  const truth = mean(rates);
  let covered = 0;
  for (let run = 0; run < runs; run++) {
    const counts = Array.from({ length: n_questions }, () => ({
      successes: binomial(random, n, pick(random, rates)),
      n,
    }));
    const { ci_low, ci_high } = rateOf(interval(counts));
    if (ci_low <= truth && truth <= ci_high) covered++;
  }
  return covered / runs;
}

/** As if all responses came from one question. */
const ignoringQuestions = (counts: QuestionCount[]) =>
  wilson(
    counts.reduce((sum, { successes }) => sum + successes, 0),
    counts.reduce((sum, { n }) => sum + n, 0),
  );

describe("coverage of the 95 % interval in simulation", () => {
  test.each([
    { rates: [0.2], n_questions: 8, n: 50 },
    { rates: [0.02], n_questions: 20, n: 20 },
    { rates: [0.5], n_questions: 4, n: 25 },
  ])("is at least nominal when questions do not differ: $rates over $n_questions x $n", (design) => {
    expect(coverage(design, clusterRate)).toBeGreaterThanOrEqual(0.94);
  });

  test.each([
    { rates: SPREAD_RATES, n_questions: 8, n: 50, least: 0.9 },
    { rates: SPREAD_RATES, n_questions: 24, n: 20, least: 0.93 },
    { rates: SPREAD_RATES, n_questions: 48, n: 20, least: 0.93 },
    { rates: [0.1, 0.3, 0.5, 0.7], n_questions: 8, n: 50, least: 0.93 },
  ])("is near nominal when they differ: $n_questions questions of $rates", ({ least, ...design }) => {
    const share = coverage(design, clusterRate);
    expect(share).toBeGreaterThanOrEqual(least);
    expect(share).toBeLessThanOrEqual(0.99);
  });

  test("falls far short when the questions are ignored", () => {
    const design = { rates: SPREAD_RATES, n_questions: 8, n: 50 };
    expect(coverage(design, ignoringQuestions)).toBeLessThan(0.6);
  });
});
