import { criticalValue, normalTail, studentQuantile, studentTail } from "./quantiles.ts";
import {
  clusterRate,
  DEFAULT_LEVEL,
  NO_DATA,
  type NoData,
  type QuestionCount,
  scoreInterval,
  validateCount,
} from "./rates.ts";

/** One question under one model. `indicators` maps a sample's key to whether its response shows the property. */
export interface PairedQuestion extends QuestionCount {
  question: string;
  indicators?: ReadonlyMap<string, boolean>;
}

/** Rate of a minus rate of b. `difference` and both ends are fractions in [-1, 1]. */
export interface Contrast {
  kind: "contrast";
  difference: number;
  ci_low: number;
  ci_high: number;
  /** Two-sided. */
  p_value: number;
  standard_error: number;
  unit: "question" | "response";
  /** Questions that both models answered; the others are left out. */
  n_questions: number;
  /** Smallest true difference that this design finds with 80 % power at this level. */
  minimum_detectable_difference: number;
  /** Correlation of the indicators of matched samples within questions; null where one side never varies. */
  sample_correlation: number | null;
  /** Samples that both models answered under the same key. */
  n_matched: number;
}
export type ContrastEstimate = Contrast | NoData;

interface Pair {
  a: PairedQuestion;
  b: PairedQuestion;
}

/** Power at which the minimum detectable difference is given. Source: Cohen, "Statistical Power Analysis" (1988), 2.4. */
const DEFAULT_POWER = 0.8;

/** Differences of two shares closer than this are equal but for rounding: real ones are at least 1 / (n_a n_b) apart. */
const SAME_DIFFERENCE = 1e-12;

/**
 * The true difference, in units of `standard_error`, that a two-sided test at `level` finds with probability `power`.
 *
 * (t[1 - alpha/2] + t[power]) x standard error, on `df` degrees of freedom. Source: Bloom, "Minimum detectable effects",
 * Evaluation Review 19 (1995).
 */
export function minimumDetectableDifference(
  standard_error: number,
  df: number,
  { level = DEFAULT_LEVEL, power = DEFAULT_POWER }: { level?: number; power?: number } = {},
): number {
  return (criticalValue(level, df) + studentQuantile(power, df)) * standard_error;
}

function pairQuestions(a: readonly PairedQuestion[], b: readonly PairedQuestion[]): Pair[] {
  const other = new Map(b.map((question) => [question.question, question]));
  return a.flatMap((question) => {
    const match = other.get(question.question);
    return match !== undefined && match.n > 0 && question.n > 0 ? [{ a: question, b: match }] : [];
  });
}

/** Pearson's correlation of matched indicators after each question's own mean is taken off. */
function sampleCorrelation(pairs: readonly Pair[]): { sample_correlation: number | null; n_matched: number } {
  let [n_matched, aa, bb, ab] = [0, 0, 0, 0];
  for (const { a, b } of pairs) {
    const matched = [...(a.indicators ?? [])].flatMap(([key, value]): [number, number][] => {
      const other = b.indicators?.get(key);
      return other === undefined ? [] : [[Number(value), Number(other)]];
    });
    const mean = (side: 0 | 1) => matched.reduce((sum, pair) => sum + pair[side], 0) / matched.length;
    const [mean_a, mean_b] = [mean(0), mean(1)];
    n_matched += matched.length;
    for (const [x, y] of matched) {
      aa += (x - mean_a) ** 2;
      bb += (y - mean_b) ** 2;
      ab += (x - mean_a) * (y - mean_b);
    }
  }
  const varies = aa > 0 && bb > 0;
  return { sample_correlation: varies ? Math.max(-1, Math.min(1, ab / Math.sqrt(aa * bb))) : null, n_matched };
}

const clip = (value: number) => Math.max(-1, Math.min(1, value));

/**
 * Ends of the interval of a difference of two rates from the interval of each.
 *
 * Source: Newcombe, "Interval estimation for the difference between independent proportions", Stat. Med. 17 (1998),
 * method 10; Zou & Donner, "Construction of confidence limits about effect measures", Stat. Med. 27 (2008) ("MOVER").
 */
function combinedInterval(rates: [number, number], [a, b]: [[number, number], [number, number]]): [number, number] {
  const difference = rates[0] - rates[1];
  return [
    clip(difference - Math.hypot(rates[0] - a[0], b[1] - rates[1])),
    clip(difference + Math.hypot(a[1] - rates[0], rates[1] - b[0])),
  ];
}

type Test = Pick<Contrast, "difference" | "ci_low" | "ci_high" | "p_value" | "standard_error">;

/** One question: its responses are the unit; Newcombe's interval and the score test of two proportions. */
function testOneQuestion({ a, b }: Pair, level: number): Test {
  const z = criticalValue(level);
  const rates: [number, number] = [a.successes / a.n, b.successes / b.n];
  const difference = rates[0] - rates[1];
  const intervals: [[number, number], [number, number]] = [
    scoreInterval(rates[0], a.n, z),
    scoreInterval(rates[1], b.n, z),
  ];
  const [ci_low, ci_high] = combinedInterval(rates, intervals);
  const pooled = (a.successes + b.successes) / (a.n + b.n);
  const null_error = Math.sqrt(pooled * (1 - pooled) * (1 / a.n + 1 / b.n));
  const p_value = null_error === 0 ? 1 : 2 * normalTail(Math.abs(difference) / null_error);
  return { difference, ci_low, ci_high, p_value, standard_error: (ci_high - ci_low) / (2 * z) };
}

/** The same difference in every question, which happens at 0 and 1: see {@link pairedContrast}. */
function testEqualDifferences(pairs: readonly Pair[], difference: number, level: number): Test {
  const k = pairs.length;
  const [a, b] = [
    clusterRate(
      pairs.map((pair) => pair.a),
      level,
    ),
    clusterRate(
      pairs.map((pair) => pair.b),
      level,
    ),
  ];
  if (a.kind === "no_data" || b.kind === "no_data") throw new RangeError("a pair without responses");
  const ends: [[number, number], [number, number]] = [
    [a.ci_low, a.ci_high],
    [b.ci_low, b.ci_high],
  ];
  const [ci_low, ci_high] = combinedInterval([a.rate, b.rate], ends);
  const standard_error = (ci_high - ci_low) / (2 * criticalValue(level, k - 1));
  return { difference, ci_low, ci_high, p_value: difference === 0 ? 1 : 2 ** (1 - k), standard_error };
}

function testQuestions(pairs: readonly Pair[], level: number): Test {
  const k = pairs.length;
  const differences = pairs.map(({ a, b }) => a.successes / a.n - b.successes / b.n);
  const difference = differences.reduce((sum, value) => sum + value, 0) / k;
  const spread = Math.max(...differences) - Math.min(...differences);
  if (spread < SAME_DIFFERENCE) return testEqualDifferences(pairs, difference, level);
  const squares = differences.reduce((sum, value) => sum + (value - difference) ** 2, 0);
  const standard_error = Math.sqrt(squares / (k - 1) / k);
  const half = criticalValue(level, k - 1) * standard_error;
  return {
    difference,
    ci_low: clip(difference - half),
    ci_high: clip(difference + half),
    p_value: 2 * studentTail(Math.abs(difference) / standard_error, k - 1),
    standard_error,
  };
}

/**
 * The difference of two models' rates, paired by question: the mean over questions of rate a - rate b, each question
 * counting the same, with a t interval over those differences.
 *
 * Pairing takes out what makes a question hard for every model. It is the difference of the pooled rates where all
 * questions have equally many responses.
 * - Every question has the same difference (all zero, say): the t interval would have zero width. The interval is
 *   Newcombe's over the two `clusterRate` intervals instead, and the p value that of the exact sign-flip test: 1 for a
 *   difference of zero, else 2^(1-k), the smallest that k questions can give.
 * - One shared question: `unit` is "response", Newcombe's interval, score test.
 * - No shared question: no data.
 *
 * Source: paired t interval, Student (1908); on pairing by question, Miller, "Adding error bars to evals",
 * arXiv 2411.00640, section 4; sign-flip test, Fisher, "The Design of Experiments" (1935), section 21.
 *
 * @throws RangeError on counts that cannot be
 */
export function pairedContrast(
  a: readonly PairedQuestion[],
  b: readonly PairedQuestion[],
  level: number = DEFAULT_LEVEL,
): ContrastEstimate {
  for (const count of [...a, ...b]) validateCount(count);
  const pairs = pairQuestions(a, b);
  const [first] = pairs;
  if (first === undefined) return NO_DATA;
  const alone = pairs.length === 1;
  const test = alone ? testOneQuestion(first, level) : testQuestions(pairs, level);
  const df = alone ? first.a.n + first.b.n : pairs.length - 1;
  return {
    kind: "contrast",
    ...test,
    unit: alone ? "response" : "question",
    n_questions: pairs.length,
    minimum_detectable_difference: Math.min(1, minimumDetectableDifference(test.standard_error, df, { level })),
    ...sampleCorrelation(pairs),
  };
}
