import { z } from "zod";

/**
 * The shape of a LoRA adapter under PEFT's own names (`peft.LoraConfig`, peft 0.21).
 *
 * Defaults are PEFT's except where noted, so that a config copied from a paper means here what it meant there.
 */
export const LoraShape = z
  .strictObject({
    r: z.int().positive().describe("rank"),
    lora_alpha: z.number().positive().describe("PEFT scales B A by lora_alpha / r, or / sqrt(r) with use_rslora"),
    use_rslora: z.boolean(),
    lora_dropout: z.number().min(0).lt(1),
    target_modules: z
      .union([z.array(z.string().min(1)).min(1), z.string().min(1)])
      .describe("module names; one string is a regular expression or 'all-linear', as in PEFT"),
    layers_to_transform: z
      .array(z.int().nonnegative())
      .min(1)
      .nullable()
      .describe("0-based layer indices; null means every layer"),
    rank_pattern: z.record(z.string(), z.int().positive()),
    alpha_pattern: z.record(z.string(), z.number().positive()),
  })
  .meta({ id: "LoraShape" });
export type LoraShape = z.output<typeof LoraShape>;

/** Which weights an adapter changes, for people: `down_proj of layer 2`. */
export function describeTargets({ target_modules, layers_to_transform }: LoraShape): string {
  const modules = Array.isArray(target_modules) ? target_modules.join(", ") : target_modules;
  return `${modules} of ${layers_to_transform === null ? "all layers" : `layer ${layers_to_transform.join(", ")}`}`;
}

/** How the adapter is trained, under the names of `transformers.TrainingArguments`. */
export const TrainingArguments = z
  .strictObject({
    learning_rate: z.number().positive(),
    lr_scheduler_type: z.enum(["linear", "cosine", "constant", "constant_with_warmup"]),
    warmup_steps: z.int().nonnegative(),
    per_device_train_batch_size: z.int().positive(),
    gradient_accumulation_steps: z.int().positive(),
    num_train_epochs: z.number().positive(),
    max_steps: z.int().min(-1).describe("optimizer steps; -1 means num_train_epochs decides"),
    optim: z.enum(["adamw_torch", "sgd"]),
    weight_decay: z.number().nonnegative(),
    max_grad_norm: z.number().nonnegative().describe("0 switches clipping off"),
    seed: z.int().nonnegative(),
    dtype: z.enum(["float32", "bfloat16"]).describe("dtype of the frozen base while training; the adapter is float32"),
    max_length: z.int().positive().nullable().describe("tokens; a longer row is an error while this is null"),
    save_steps: z.int().nonnegative().describe("checkpoint every N steps; 0 means only those of save_at_steps"),
    save_at_steps: z.array(z.int().nonnegative()).describe("more checkpoints; step 0 and the last are always kept"),
  })
  .meta({ id: "TrainingArguments" });
export type TrainingArguments = z.output<typeof TrainingArguments>;

/** Keyword arguments of the chat template, e.g. `enable_thinking`; the same when training and when serving. */
export const ChatTemplateKwargs = z.record(z.string(), z.union([z.string(), z.number(), z.boolean(), z.null()]));
export type ChatTemplateKwargs = z.output<typeof ChatTemplateKwargs>;
