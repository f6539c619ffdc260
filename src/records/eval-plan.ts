import { z } from "zod";
import { Group, SERVED_DTYPES } from "./experiment.ts";
import { ChatTemplateKwargs } from "./lora.ts";
import { Sampler } from "./sampler.ts";

/** `eval.json`: what an evaluation was asked for, so that `judge` and `report` can take it up again by its folder. */
export const EvalPlan = z.strictObject({
  schema_version: z.literal(2),
  id: z.string(),
  name: z.string(),
  base_model: z.string(),
  served_dtype: z.enum(SERVED_DTYPES),
  chat_template_kwargs: ChatTemplateKwargs,
  questions: z.array(z.string()).describe("ids or absolute paths"),
  sampler: Sampler,
  seed: z.int().nonnegative(),
  samples: z.int().positive(),
  judge: z.string(),
  groups: z.record(z.string(), Group),
  control: z.string().nullable(),
  notes: z.array(z.string()),
  models: z.array(
    z.strictObject({
      label: z.string(),
      run: z.string().nullable().describe("absolute folder of the run; null for the base"),
      step: z.int().nonnegative().nullable(),
      scale: z.number(),
      question_sets: z.array(z.string()),
      samples: z.int().positive(),
      curve_only: z.boolean(),
    }),
  ),
});
export type EvalPlan = z.output<typeof EvalPlan>;
