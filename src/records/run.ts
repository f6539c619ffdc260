import { z } from "zod";
import { ChatTemplateKwargs, LoraShape, Rendering, TrainingArguments } from "./lora.ts";

/** `config.json` of a training run: everything that was decided, defaults included. `source` is no part of its identity. */
const DataRef = z.strictObject({ id: z.string(), sha256: z.string().length(64), rows: z.int().positive() });

export const RunConfig = z.strictObject({
  schema_version: z.literal(2),
  name: z.string(),
  base_model: z.strictObject({
    id: z.string(),
    sha256: z.string().length(64),
    n_layers: z.int().positive(),
    tokenizer_sha256: z.string().length(64),
    template_sha256: z.string().length(64),
  }),
  data: DataRef,
  eval_data: DataRef.nullable().describe("held-out rows of their own file"),
  kl_data: DataRef.nullable(),
  chat_template_kwargs: ChatTemplateKwargs,
  rendering: Rendering,
  lora: LoraShape.nullable().describe("null: all weights are trained"),
  training: TrainingArguments,
  steps: z.int().nonnegative(),
  checkpoints: z.array(z.int().nonnegative()),
  source: z.strictObject({
    base_model: z.string().describe("id or absolute folder, so that a later command finds the base again"),
    data: z.string(),
    eval_data: z.string().nullable(),
    kl_data: z.string().nullable(),
  }),
});
export type RunConfig = z.output<typeof RunConfig>;

/** A row of `metrics.jsonl`: units as in `TrainStep` of the wire. `loss` and `grad_norm` are null when not finite. */
export const MetricsRow = z.strictObject({
  step: z.int().positive(),
  epoch: z.number(),
  loss: z.number().nullable(),
  kl: z.number().nullable(),
  grad_norm: z.number().nullable(),
  learning_rate: z.number(),
  tokens: z.int(),
  target_tokens: z.int(),
  padding_tokens: z.int(),
  seconds: z.number(),
  tokens_per_second: z.number(),
  mfu: z.number().nullable(),
  a_norm: z.number().nullable(),
  b_norm: z.number().nullable(),
  peak_memory_bytes: z.int(),
});
export type MetricsRow = z.output<typeof MetricsRow>;

/** A row of `held-out.jsonl`. */
export const HeldOutRow = z.strictObject({
  step: z.int().nonnegative(),
  loss: z.number().nullable(),
  rows: z.int().positive(),
  target_tokens: z.int().positive(),
});
export type HeldOutRow = z.output<typeof HeldOutRow>;
