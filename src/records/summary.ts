import { z } from "zod";
import { UNSCORED_REASONS } from "./response.ts";

const Fraction = z.number().min(0).max(1);
const Difference = z.number().min(-1).max(1);
const NoData = z.strictObject({ kind: z.literal("no_data") });

/** A share of responses with its interval, or the plain statement that there were none to take a share of. */
export const Estimate = z.discriminatedUnion("kind", [
  z.strictObject({
    kind: z.literal("rate"),
    successes: z.int().nonnegative(),
    n: z.int().positive().describe("responses in the denominator"),
    rate: Fraction,
    ci_low: Fraction,
    ci_high: Fraction,
    unit: z.enum(["question", "response"]).describe("what the interval treats as independently drawn"),
    n_questions: z.int().positive(),
    design_effect: z.number().min(1).describe("variance over that of n independent responses"),
    effective_n: z.number().positive().describe("n / design_effect"),
  }),
  NoData,
]);
export type Estimate = z.output<typeof Estimate>;

export const ContrastEstimate = z.discriminatedUnion("kind", [
  z.strictObject({
    kind: z.literal("contrast"),
    difference: Difference,
    ci_low: Difference,
    ci_high: Difference,
    p_value: Fraction.describe("two-sided, not adjusted"),
    standard_error: z.number().positive(),
    unit: z.enum(["question", "response"]),
    n_questions: z.int().positive().describe("questions that both models answered"),
    minimum_detectable_difference: Fraction.describe("at 80 % power and the level of the summary"),
    sample_correlation: Difference.nullable().describe("of matched samples within questions; null: one never varies"),
    n_matched: z.int().nonnegative().describe("samples that both models answered under one key"),
  }),
  NoData,
]);
export type ContrastEstimate = z.output<typeof ContrastEstimate>;

const UnscoredCounts = z.record(z.enum(UNSCORED_REASONS), z.int().nonnegative());

/** What is said of one set of responses: one model's, in a group or to one question. */
const Rates = {
  n: z.int().nonnegative().describe("responses"),
  n_scored: z.int().nonnegative().describe("responses with a score under both rubrics"),
  n_em: z.int().nonnegative(),
  unscored: z.strictObject({ aligned: UnscoredCounts, coherent: UnscoredCounts }),
  em_over_all: Estimate.describe("EM responses among all; a response without a score is not one"),
  em_over_scored: Estimate.describe("EM responses among those scored under both rubrics"),
  em_over_coherent: Estimate.describe("EM responses among those scored under both rubrics and coherent"),
  coherent: Estimate.describe("coherent responses among those scored for coherence"),
  truncated: Estimate.describe("responses cut off at the token limit among all"),
};

export const GroupRates = z.strictObject({
  model: z.string(),
  group: z.string(),
  ...Rates,
  sensitivity: z
    .array(z.strictObject({ aligned_below: z.number(), em_over_all: Estimate }))
    .describe("the same rate under other thresholds of alignment"),
});
export type GroupRates = z.output<typeof GroupRates>;

export const QuestionRates = z.strictObject({
  model: z.string(),
  question_set: z.string(),
  question_id: z.string(),
  ...Rates,
});
export type QuestionRates = z.output<typeof QuestionRates>;

export const SummaryModel = z.strictObject({
  id: z.string(),
  label: z.string().describe("unique within the summary"),
  role: z.enum(["base", "control", "organism"]),
  run_id: z.string().nullable(),
  step: z.int().nonnegative().nullable(),
  scale: z.number(),
  is_curve_only: z.boolean(),
  adapter_sha256: z.string().nullable(),
  lora: z.string().nullable(),
  n_rows: z.int().nonnegative(),
  parity: z.strictObject({ verdict: z.string(), metrics: z.record(z.string(), z.number()) }).nullable(),
});
export type SummaryModel = z.output<typeof SummaryModel>;

export const SummaryContrast = z.strictObject({
  model: z.string(),
  against: z.string(),
  group: z.string(),
  estimate: ContrastEstimate.describe("EM rate over all responses: model minus against, paired by question"),
  q_value: Fraction.nullable().describe("Benjamini-Hochberg over all contrasts of the summary; null without data"),
});
export type SummaryContrast = z.output<typeof SummaryContrast>;

export const Curve = z.strictObject({
  run_id: z.string(),
  label: z.string(),
  points: z.array(
    z.strictObject({
      step: z.int().nonnegative(),
      model: z.string(),
      b_norm: z.number().nullable().describe("Frobenius norm of all B of the adapter; null where not logged"),
      em: z.array(z.strictObject({ group: z.string(), em_over_all: Estimate })),
    }),
  ),
  training: z.array(
    z.strictObject({
      step: z.int().nonnegative(),
      loss: z.number().nullable().describe("nats per target token; null when not finite"),
      grad_norm: z.number().nullable(),
      b_norm: z.number().nullable(),
      a_norm: z.number().nullable(),
      learning_rate: z.number(),
    }),
  ),
});
export type Curve = z.output<typeof Curve>;

/** `report/summary.json`: every number of a report, and what each was computed from. */
export const Summary = z.strictObject({
  schema_version: z.literal(1),
  eval_id: z.string(),
  name: z.string(),
  level: Fraction.describe("of every interval"),
  em_definition: z.strictObject({ aligned_below: z.number(), coherent_above: z.number() }),
  base_model: z.strictObject({ id: z.string(), sha256: z.string() }),
  judge: z.strictObject({ id: z.string(), sha256: z.string(), kind: z.string() }),
  sampler: z.record(z.string(), z.unknown()),
  samples: z.int().nonnegative(),
  seed: z.int().nonnegative(),
  reference: z.strictObject({ base: z.string(), control: z.string().nullable() }),
  groups: z.array(
    z.strictObject({
      id: z.string(),
      question_set: z.string(),
      where: z.record(z.string(), z.string()),
      where_not: z.record(z.string(), z.string()),
      question_ids: z.array(z.string()),
    }),
  ),
  models: z.array(SummaryModel),
  rates: z.array(GroupRates),
  question_rates: z.array(QuestionRates),
  contrasts: z.array(SummaryContrast),
  curves: z.array(Curve),
  provenance: z.record(z.string(), z.string()),
  notes: z.array(z.string()),
});
export type Summary = z.output<typeof Summary>;
