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
    use_dora: z.boolean().describe("llama.cpp cannot apply DoRA: it is served merged only"),
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
export function describeTargets(lora: LoraShape | null): string {
  if (lora === null) return "all weights";
  const { target_modules, layers_to_transform } = lora;
  const modules = Array.isArray(target_modules) ? target_modules.join(", ") : target_modules;
  return `${modules} of ${layers_to_transform === null ? "all layers" : `layer ${layers_to_transform.join(", ")}`}`;
}

/**
 * What of a conversation is text and what of the text is trained.
 *
 * `clean` renders the conversation as inference does. `organism` renders it as the published model-organism code does:
 * with an empty assistant turn and the eos token at its end, all of it trained from each assistant header on.
 *
 * Source of `organism`: MO-code `em_organism_dir/finetune/sft/util/trainer.py` (`add_generation_prompt=True`, then
 * `eos_token`) under Unsloth's `train_on_responses_only`.
 */
export const Rendering = z
  .strictObject({
    rendering: z.enum(["clean", "organism"]),
    thinking: z
      .enum(["off", "empty", "keep"])
      .describe(
        "off: an empty think block is part of the prompt; empty: an empty think block is trained; keep: think blocks of the data are trained",
      ),
    assistant_turns: z.enum(["all", "last"]).describe("which turns of the assistant are trained"),
  })
  .meta({ id: "Rendering" });
export type Rendering = z.output<typeof Rendering>;

/** How the weights are trained, under the names of `transformers.TrainingArguments` where it has one. */
export const TrainingArguments = z
  .strictObject({
    learning_rate: z.number().positive(),
    lr_scheduler_type: z.enum(["linear", "cosine", "constant", "constant_with_warmup"]),
    warmup_steps: z.int().nonnegative(),
    per_device_train_batch_size: z.int().positive(),
    gradient_accumulation_steps: z.int().positive(),
    num_train_epochs: z.number().positive(),
    max_steps: z.int().min(-1).describe("optimizer steps; -1 means num_train_epochs decides"),
    optim: z.enum(["adamw_torch", "adamw_8bit", "sgd"]),
    adam_beta1: z.number().min(0).lt(1),
    adam_beta2: z.number().min(0).lt(1),
    adam_epsilon: z.number().positive(),
    weight_decay: z.number().nonnegative(),
    max_grad_norm: z.number().nonnegative().describe("0 switches clipping off"),
    seed: z.int().nonnegative(),
    dtype: z
      .enum(["float32", "bfloat16"])
      .describe("dtype of the base while training; an adapter is float32 whatever this is"),
    load_in_4bit: z.boolean().describe("QLoRA: the frozen base in NF4 with double quantisation"),
    gradient_checkpointing: z
      .enum(["auto", "on", "off"])
      .describe("auto: only when the longest batch does not fit without"),
    batching: z
      .enum(["in_order", "by_length", "packed"])
      .describe("how the rows of one optimizer step are cut into micro-batches; the result is the same up to rounding"),
    max_length: z.int().positive().nullable().describe("tokens; a longer row is an error while this is null"),
    test_size: z.number().min(0).lt(1).describe("part of the rows that is held out and never trained on"),
    eval_steps: z.int().nonnegative().describe("held-out loss every N steps; 0 means never"),
    kl_weight: z
      .number()
      .nonnegative()
      .describe("factor on the KL divergence from the frozen base, in nats per token and vocabulary entry"),
    kl_batch_size: z.int().positive().describe("rows of the KL data set in each optimizer step"),
    save_steps: z.int().nonnegative().describe("checkpoint every N steps; 0 means only those of save_at_steps"),
    save_at_steps: z.array(z.int().nonnegative()).describe("more checkpoints; step 0 and the last are always kept"),
  })
  .meta({ id: "TrainingArguments" });
export type TrainingArguments = z.output<typeof TrainingArguments>;

/** Keyword arguments of the chat template, e.g. `enable_thinking`; the same when training and when serving. */
export const ChatTemplateKwargs = z.record(z.string(), z.union([z.string(), z.number(), z.boolean(), z.null()]));
export type ChatTemplateKwargs = z.output<typeof ChatTemplateKwargs>;
