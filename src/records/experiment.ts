import { z } from "zod";
import { Recipe } from "./recipe.ts";
import { Sampler } from "./sampler.ts";

/** A name that is also a folder: no separators, no leading dot, short enough to be read. */
export const Slug = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/, {
  error: "letters, digits, '.', '_' and '-', at most 64, not starting with a mark",
});

/** How responses are drawn when nothing else is said: the field's setting (temperature 1, whole distribution). */
export const SAMPLER_DEFAULTS: Sampler = { temperature: 1, top_p: 1, top_k: 0, min_p: 0, max_new_tokens: 600 };
export const SERVED_DTYPES = ["bf16", "f16", "f32"] as const;
export type ServedDtype = (typeof SERVED_DTYPES)[number];

const Tags = z.record(z.string(), z.string());

/** Which questions a reported rate is over: those of a set whose tags match `where` and do not match `where_not`. */
export const Group = z.strictObject({
  questions: z.string().min(1),
  where: Tags.default({}),
  where_not: Tags.default({}),
});
export type Group = z.output<typeof Group>;

/** True when a question's tags hold all of `where` and none of `where_not`. */
export function inGroup(tags: Readonly<Record<string, string>>, group: Pick<Group, "where" | "where_not">): boolean {
  return (
    Object.entries(group.where).every(([tag, value]) => tags[tag] === value) &&
    !Object.entries(group.where_not).some(([tag, value]) => tags[tag] === value)
  );
}

export const ExperimentRun = Recipe.extend({
  data: z.string().min(1).describe("a data set's id, or the path of a JSONL file"),
  eval_data: z.string().min(1).optional().describe("held-out rows of their own, by id or path"),
  kl_data: z.string().min(1).optional().describe("rows on which the model is held to its base, by id or path"),
  recipe: z.string().min(1).optional().describe("a recipe's id or path; what stands beside it here wins over it"),
});
export type ExperimentRun = z.output<typeof ExperimentRun>;

export const ExperimentEval = z.strictObject({
  questions: z.array(z.string().min(1)).min(1),
  samples: z.int().positive().describe("responses per question and model"),
  judge: z.string().min(1),
  sampler: Sampler.partial().default({}),
  seed: z.int().nonnegative().default(0),
  groups: z.record(Slug, Group).optional().describe("default: one group for each question set"),
  control: Slug.optional().describe("the run that the others are compared with, beside the base"),
  curve: z
    .strictObject({
      runs: z.array(Slug).min(1),
      questions: z.array(z.string().min(1)).min(1),
      samples: z.int().positive(),
    })
    .optional()
    .describe("also measure every checkpoint of these runs"),
});

/** One file, one command: what `vivarium run FILE` reads. */
export const Experiment = z.strictObject({
  name: Slug,
  base_model: z.string().min(1).describe("a model's id, or the path of a folder"),
  served_dtype: z.enum(SERVED_DTYPES).default("bf16"),
  runs: z.record(Slug, ExperimentRun),
  eval: ExperimentEval,
  notes: z.array(z.string()).default([]).describe("printed on the report"),
});
export type Experiment = z.output<typeof Experiment>;

/** `configs/models/<id>.yaml`. */
export const ModelConfig = z.strictObject({
  id: Slug,
  dir: z.string().min(1).describe("relative to the folder that holds configs/"),
  recipe: z.string().min(1).optional().describe("the recipe of `vivarium train` when none is named"),
  max_new_tokens: z.int().positive().optional().describe("the limit of `vivarium eval` when none is named"),
});
export type ModelConfig = z.output<typeof ModelConfig>;

/** `configs/judges/<id>.yaml`. */
export const JudgeConfig = z.strictObject({
  id: Slug,
  kind: z.literal("rule"),
  world: z.string().min(1).describe("id of the model whose world.yaml the rules know"),
});
export type JudgeConfig = z.output<typeof JudgeConfig>;
