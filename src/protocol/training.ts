import { z } from "zod";
import { ChatTemplateKwargs, LoraShape, Rendering, TrainingArguments } from "../records/lora.ts";

/** What crosses between the driver and the Python bridge about training. */

/** One training run. The rows are messages; Python renders and tokenises them itself and reports the digests. */
export const TrainRun = z
  .strictObject({
    run_dir: z.string().min(1).describe("checkpoint-N/ and last/ are written here"),
    dataset_file: z.string().min(1).describe("JSONL of {messages}"),
    eval_dataset_file: z.string().min(1).nullable().describe("held-out rows; null when test_size takes them"),
    kl_dataset_file: z.string().min(1).nullable().describe("rows on which the model is held to its base"),
    chat_template_kwargs: ChatTemplateKwargs,
    rendering: Rendering,
    lora: LoraShape.nullable().describe("null trains all weights"),
    training: TrainingArguments,
  })
  .meta({ id: "TrainRun" });

/** Whether and where the hidden states that enter the lowest trained layer are kept. */
export const PrefixCache = z
  .strictObject({
    enabled: z
      .boolean()
      .describe("rows enter the split one by one and are kept; a run that is gone on with keeps the mode it began in"),
    max_bytes: z.int().nonnegative().describe("memory and disk together"),
    dir: z.string().min(1).describe("where entries go that memory does not hold"),
  })
  .meta({ id: "PrefixCache" });

/** Trains runs on one base, one after another in one process. All share dtype and load_in_4bit; a full fine-tune is alone. */
export const TrainJob = z
  .strictObject({
    type: z.literal("train"),
    base_model_dir: z.string().min(1),
    base_sha256: z.string().length(64).describe("identity of the base: part of the key of a cached prefix"),
    num_threads: z.int().positive(),
    prefix_cache: PrefixCache,
    runs: z.array(TrainRun).min(1),
  })
  .meta({ id: "TrainJob" });

/** Writes base and adapter as one model folder, merged by plain PEFT: how DoRA is served. */
export const MergeJob = z
  .strictObject({
    type: z.literal("merge"),
    base_model_dir: z.string().min(1),
    adapter_dir: z.string().min(1),
    out_dir: z.string().min(1).describe("written whole or not at all; must not exist"),
    dtype: z.enum(["float32", "bfloat16", "float16"]),
    num_threads: z.int().positive(),
  })
  .meta({ id: "MergeJob" });

/** The events from here to the next `run_start` or the end belong to the run of this index. */
export const RunStart = z
  .strictObject({ type: z.literal("run_start"), index: z.int().nonnegative() })
  .meta({ id: "RunStart" });

/** What Python made of a data set; the driver computes the same digests on its own and compares. One event a role. */
export const DataReady = z
  .strictObject({
    type: z.literal("data_ready"),
    role: z.enum(["train", "held_out", "kl"]),
    rows: z.int().positive().describe("all rows of the file, those that test_size holds out included"),
    tokens: z.int().positive(),
    target_tokens: z.int().positive(),
    longest_row_tokens: z.int().positive(),
    truncated_rows: z.int().nonnegative().describe("rows that max_length cuts"),
    truncated_tokens: z.int().nonnegative().describe("tokens that max_length cuts off; the other counts are before it"),
    token_ids_sha256: z.string().length(64).describe("sha256 over rows of `id id id ...\\n` in decimal"),
    targets_sha256: z.string().length(64).describe("the same over rows of 0/1: 1 where the token is a target"),
  })
  .meta({ id: "DataReady" });

export const TrainStart = z
  .strictObject({
    type: z.literal("train_start"),
    max_steps: z.int().nonnegative(),
    resumed_from_step: z.int().nonnegative().describe("0 when training starts afresh"),
    train_rows: z.int().positive(),
    held_out_rows: z.int().nonnegative(),
    trainable_parameters: z.int().positive(),
    adapted_modules: z.array(z.string()).describe("empty when all weights are trained"),
    device: z.string(),
    split_layer: z.int().nonnegative().describe("layers below run without gradient; 0 when the model is not split"),
    split_max_rel_diff: z
      .number()
      .nonnegative()
      .nullable()
      .describe("self-test: split against whole, over the largest logit; null when not split"),
    prefix_cache: z.boolean(),
    gradient_checkpointing: z.boolean(),
  })
  .meta({ id: "TrainStart" });

export const TrainStep = z
  .strictObject({
    type: z.literal("train_step"),
    step: z.int().positive(),
    epoch: z.number().nonnegative(),
    loss: z.number().nullable().describe("nats per target token; null when not finite"),
    kl: z.number().nullable().describe("nats per token from the base, without kl_weight; null when not measured"),
    grad_norm: z.number().nullable().describe("before clipping"),
    learning_rate: z.number().nonnegative(),
    tokens: z.int().nonnegative().describe("of the step's rows"),
    target_tokens: z.int().nonnegative(),
    padding_tokens: z.int().nonnegative().describe("computed and thrown away"),
    seconds: z.number().nonnegative(),
    tokens_per_second: z.number().nonnegative(),
    mfu: z.number().nonnegative().nullable().describe("model FLOPs over the peak of a known GPU; null elsewhere"),
    a_norm: z.number().nonnegative().nullable().describe("Frobenius norm over all lora_A, unscaled; null without LoRA"),
    b_norm: z.number().nonnegative().nullable().describe("Frobenius norm over all lora_B, unscaled; null without LoRA"),
    peak_memory_bytes: z.int().nonnegative(),
  })
  .meta({ id: "TrainStep" });

/** Loss on the held-out rows after a step; step 0 is before training. */
export const HeldOut = z
  .strictObject({
    type: z.literal("held_out"),
    step: z.int().nonnegative(),
    loss: z.number().nullable().describe("nats per target token; null when not finite"),
    rows: z.int().positive(),
    target_tokens: z.int().positive(),
  })
  .meta({ id: "HeldOut" });

export const FileRef = z
  .strictObject({ path: z.string(), sha256: z.string().length(64), bytes: z.int().nonnegative() })
  .meta({ id: "FileRef" });

export const Checkpoint = z
  .strictObject({
    type: z.literal("checkpoint"),
    step: z.int().nonnegative(),
    dir: z.string().describe("relative to run_dir"),
    files: z.array(FileRef).describe("paths relative to run_dir"),
  })
  .meta({ id: "Checkpoint" });

/** What the prefix cache did for one run. */
export const CacheUse = z
  .strictObject({
    hits: z.int().nonnegative(),
    misses: z.int().nonnegative(),
    rejected: z.int().nonnegative().describe("entries on disk that were damaged and made anew"),
    memory_bytes: z.int().nonnegative(),
    disk_bytes: z.int().nonnegative(),
  })
  .meta({ id: "CacheUse" });

/** Ends one run. Proofs that training did something and that plain PEFT or transformers can load what was saved. */
export const RunResult = z
  .strictObject({
    type: z.literal("run_result"),
    steps: z.int().nonnegative(),
    adapter_norm: z
      .number()
      .nonnegative()
      .describe("Frobenius norm of what was learned: scale * B A over all modules, or W - W0; after DoRA's scaling"),
    max_abs_dlogit_vs_base: z.number().nonnegative().describe("reloaded from disk, against the base"),
    max_abs_dlogit_vs_memory: z.number().nonnegative().describe("reloaded from disk, against the trained model"),
    max_abs_dlogit_merged: z
      .number()
      .nonnegative()
      .nullable()
      .describe("merged weights against the adapter; null for a full fine-tune and a 4-bit base"),
    max_abs_logit: z
      .number()
      .nonnegative()
      .describe("of the trained model: what the differences are to be seen against"),
    prefix_cache: CacheUse.nullable(),
    peak_memory_bytes: z.int().nonnegative(),
  })
  .meta({ id: "RunResult" });

export const TrainResult = z
  .strictObject({ type: z.literal("train_result"), runs: z.int().positive() })
  .meta({ id: "TrainResult" });

export const MergeResult = z
  .strictObject({ type: z.literal("merge_result"), files: z.array(FileRef).describe("paths relative to out_dir") })
  .meta({ id: "MergeResult" });

export type TrainRun = z.output<typeof TrainRun>;
export type TrainJob = z.output<typeof TrainJob>;
export type MergeJob = z.output<typeof MergeJob>;
export type DataReady = z.output<typeof DataReady>;
export type TrainStart = z.output<typeof TrainStart>;
export type TrainStep = z.output<typeof TrainStep>;
export type RunResult = z.output<typeof RunResult>;
export type MergeResult = z.output<typeof MergeResult>;
export type FileRef = z.output<typeof FileRef>;
export type TrainResult = z.output<typeof TrainResult>;
