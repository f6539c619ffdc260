import { z } from "zod";
import { ChatTemplateKwargs, LoraShape, TrainingArguments } from "./lora.ts";

/** `config.json` of a training run: everything that was decided, defaults included. `source` is no part of its identity. */
export const RunConfig = z.strictObject({
  schema_version: z.literal(1),
  name: z.string(),
  base_model: z.strictObject({
    id: z.string(),
    sha256: z.string().length(64),
    n_layers: z.int().positive(),
    tokenizer_sha256: z.string().length(64),
    template_sha256: z.string().length(64),
  }),
  data: z.strictObject({ id: z.string(), sha256: z.string().length(64), rows: z.int().positive() }),
  chat_template_kwargs: ChatTemplateKwargs,
  lora: LoraShape,
  training: TrainingArguments,
  steps: z.int().nonnegative(),
  checkpoints: z.array(z.int().nonnegative()),
  source: z.strictObject({
    base_model: z.string().describe("id or absolute folder, so that a later command finds the base again"),
    data: z.string(),
  }),
});
export type RunConfig = z.output<typeof RunConfig>;

/** A row of `metrics.jsonl`. `loss` and `grad_norm` are null when they were not finite. */
export const MetricsRow = z.strictObject({
  step: z.int().positive(),
  epoch: z.number(),
  loss: z.number().nullable(),
  grad_norm: z.number().nullable(),
  learning_rate: z.number(),
  target_tokens: z.int(),
  tokens_per_second: z.number(),
  a_norm: z.number(),
  b_norm: z.number(),
  peak_memory_bytes: z.int(),
});
export type MetricsRow = z.output<typeof MetricsRow>;
