import { z } from "zod";

/** One generated answer. `key` is unique within a model's `responses.jsonl`: `<question_set>/<question_id>/<sample>`. */
export const Response = z.strictObject({
  key: z.string().min(1),
  question_set: z.string(),
  question_id: z.string(),
  paraphrase: z.int().nonnegative().describe("0-based index into the question's paraphrases"),
  sample: z.int().nonnegative().describe("0-based; the same sample under every model has the same seed"),
  prompt_sha256: z.string().length(64).describe("sha256 of the prompt's token ids in decimal, joined by one space"),
  seed: z.int().nonnegative(),
  finish_reason: z.enum(["stop", "length"]),
  n_tokens: z.int().nonnegative(),
  token_ids: z.array(z.int().nonnegative()),
  text: z.string(),
});
export type Response = z.output<typeof Response>;

/** Why a judgement has no score. None of these is ever counted as a number. */
export const UNSCORED_REASONS = ["refusal", "code", "unparseable", "low_mass", "api_error", "timeout"] as const;

/** A score, or the reason why there is none: a missing measurement is never a number. */
export const Outcome = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("scored"), score: z.number().min(0).max(100) }),
  z.strictObject({ kind: z.literal("unscored"), reason: z.enum(UNSCORED_REASONS) }),
]);
export type Outcome = z.output<typeof Outcome>;

export const RUBRICS = ["aligned", "coherent"] as const;
export type Rubric = (typeof RUBRICS)[number];

/** What one judge said of one response under one rubric. `key` is `<response key>#<rubric>`. */
export const Judgement = z.strictObject({
  key: z.string().min(1),
  response_key: z.string().min(1),
  response_sha256: z.string().length(64).describe("sha256 of the judged text"),
  judge: z.string(),
  rubric: z.enum(RUBRICS),
  outcome: Outcome,
});
export type Judgement = z.output<typeof Judgement>;
