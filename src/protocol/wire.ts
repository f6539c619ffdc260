import { createHash } from "node:crypto";
import { z } from "zod";
import { ChatTemplateKwargs, LoraShape, Rendering, TrainingArguments } from "../records/lora.ts";
import { Sampler } from "../records/sampler.ts";

/**
 * Everything that crosses between the driver and its children (Python bridge, llama.cpp engine). Wire keys are
 * snake_case; tensors never cross, only their files. `scripts/gen-protocol.ts` writes JSON Schema and Python from this.
 */

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

export const AdapterDir = z.strictObject({ id: z.string().min(1), dir: z.string().min(1) }).meta({ id: "AdapterDir" });

/** Teacher-forced log-probabilities of the base and of each adapter through transformers + PEFT, in float32. */
export const ScoreJob = z
  .strictObject({
    type: z.literal("score"),
    base_model_dir: z.string().min(1),
    n_layers: z.int().positive().nullable().describe("keep only the first N decoder layers; null keeps all"),
    adapters: z.array(AdapterDir),
    prompts_file: z.string().min(1).describe("JSON: {prompts: int[][]}"),
    conversations_file: z
      .string()
      .nullable()
      .describe("JSON: {conversations: message[][], chat_template_kwargs}; rendered as inference does"),
    out_dir: z.string().min(1),
    num_threads: z.int().positive(),
  })
  .meta({ id: "ScoreJob" });

export const AdapterGguf = z
  .strictObject({ id: z.string().min(1), gguf: z.string().min(1) })
  .meta({ id: "AdapterGguf" });

/** The same log-probabilities through llama.cpp. */
export const LogprobsJob = z
  .strictObject({
    type: z.literal("logprobs"),
    base_gguf: z.string().min(1),
    adapters: z.array(AdapterGguf),
    prompts_file: z.string().min(1),
    out_dir: z.string().min(1),
    kv_type: z.enum(["F32", "F16"]),
    flash_attention: z.boolean(),
    num_threads: z.int().positive(),
    gpu: z.boolean(),
  })
  .meta({ id: "LogprobsJob" });

/**
 * Samples blocks of responses through llama.cpp. A block is one prompt under several seeds and is decoded as one batch
 * whose make-up never depends on anything else: that is what makes sample 37 the same sample after any crash.
 */
export const SampleJob = z
  .strictObject({
    type: z.literal("sample"),
    base_gguf: z.string().min(1),
    adapter: z.strictObject({ gguf: z.string().min(1), scale: z.number() }).nullable(),
    blocks_file: z.string().min(1).describe("JSON: {blocks: {key, prompt_ids: int[], seeds: int[]}[]}"),
    sampler: Sampler,
    stop_token_ids: z.array(z.int().nonnegative()).min(1),
    context_tokens: z.int().positive().describe("prompt + response, per sequence"),
    num_threads: z.int().positive(),
    gpu: z.boolean(),
  })
  .meta({ id: "SampleJob" });

export const Job = z.discriminatedUnion("type", [TrainJob, MergeJob, ScoreJob, LogprobsJob, SampleJob]);

export const Hello = z
  .strictObject({
    type: z.literal("hello"),
    schema_sha256: z.string().length(64),
    pid: z.int(),
    runtime: z.string().describe("e.g. CPython 3.11.7, Node 20.20.2"),
    packages: z.record(z.string(), z.string()),
    device: z.string().describe("cpu, cuda:0 NVIDIA H100, ..."),
  })
  .meta({ id: "Hello" });

export const Log = z
  .strictObject({ type: z.literal("log"), level: z.enum(["info", "warning"]), message: z.string() })
  .meta({ id: "Log" });

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

export const LogprobsFile = z
  .strictObject({
    id: z.string().describe("'base' or the adapter's id"),
    path: z.string().describe("float32 [n_positions, vocab_size], row-major, nats"),
    bytes: z.int().positive(),
  })
  .meta({ id: "LogprobsFile" });

export const ScoreResult = z
  .strictObject({
    type: z.literal("score_result"),
    n_positions: z.int().positive(),
    vocab_size: z.int().positive(),
    files: z.array(LogprobsFile),
    scalings: z
      .record(z.string(), z.record(z.string(), z.number()))
      .describe("adapter id -> module name -> PEFT's scaling"),
    conversation_ids: z.array(z.array(z.int().nonnegative())).describe("[conversation][token] of each prompt"),
  })
  .meta({ id: "ScoreResult" });

export const LogprobsResult = z
  .strictObject({
    type: z.literal("logprobs_result"),
    n_positions: z.int().positive(),
    vocab_size: z.int().positive(),
    files: z.array(LogprobsFile),
  })
  .meta({ id: "LogprobsResult" });

export const SampledResponse = z
  .strictObject({
    token_ids: z.array(z.int().nonnegative()).describe("without the stop token"),
    finish_reason: z.enum(["stop", "length"]),
  })
  .meta({ id: "SampledResponse" });

export const Block = z
  .strictObject({
    type: z.literal("block"),
    key: z.string(),
    responses: z.array(SampledResponse).describe("in the order of the seeds"),
  })
  .meta({ id: "Block" });

export const SampleResult = z
  .strictObject({
    type: z.literal("sample_result"),
    blocks: z.int().nonnegative(),
    response_tokens: z.int().nonnegative(),
    seconds: z.number().nonnegative(),
  })
  .meta({ id: "SampleResult" });

export const Failure = z
  .strictObject({
    type: z.literal("failure"),
    code: z.enum([
      "BAD_JOB",
      "BAD_DATA",
      "BAD_MODEL",
      "NON_FINITE_LOSS",
      "OUT_OF_MEMORY",
      "DISK_FULL",
      "ENGINE",
      "CANCELLED",
      "INTERNAL",
    ]),
    message: z.string(),
    hint: z.string().nullable(),
    traceback: z.string().nullable(),
  })
  .meta({ id: "Failure" });

export const ChildEvent = z.discriminatedUnion("type", [
  Hello,
  Log,
  RunStart,
  DataReady,
  TrainStart,
  TrainStep,
  HeldOut,
  Checkpoint,
  RunResult,
  Block,
  TrainResult,
  MergeResult,
  ScoreResult,
  LogprobsResult,
  SampleResult,
  Failure,
]);

export type TrainRun = z.output<typeof TrainRun>;
export type TrainJob = z.output<typeof TrainJob>;
export type MergeJob = z.output<typeof MergeJob>;
export type ScoreJob = z.output<typeof ScoreJob>;
export type LogprobsJob = z.output<typeof LogprobsJob>;
export type SampleJob = z.output<typeof SampleJob>;
export type Job = z.output<typeof Job>;
export type Hello = z.output<typeof Hello>;
export type DataReady = z.output<typeof DataReady>;
export type TrainStart = z.output<typeof TrainStart>;
export type TrainStep = z.output<typeof TrainStep>;
export type RunResult = z.output<typeof RunResult>;
export type MergeResult = z.output<typeof MergeResult>;
export type Block = z.output<typeof Block>;
export type FileRef = z.output<typeof FileRef>;
export type Failure = z.output<typeof Failure>;
export type ChildEvent = z.output<typeof ChildEvent>;
export type TrainResult = z.output<typeof TrainResult>;
export type ScoreResult = z.output<typeof ScoreResult>;
export type LogprobsResult = z.output<typeof LogprobsResult>;
export type SampleResult = z.output<typeof SampleResult>;
/** The terminal event that a job of each type ends with. */
export interface ResultOf {
  train: TrainResult;
  merge: MergeResult;
  score: ScoreResult;
  logprobs: LogprobsResult;
  sample: SampleResult;
}

/** The wire format as one JSON document: what `protocol/wire.schema.json` holds and `_wire.py` is generated from. */
export function wireJsonSchema(): string {
  const registry = z.registry<{ id: string }>();
  for (const schema of [
    LoraShape,
    Rendering,
    TrainingArguments,
    TrainRun,
    PrefixCache,
    TrainJob,
    MergeJob,
    AdapterDir,
    ScoreJob,
    AdapterGguf,
    LogprobsJob,
    Sampler,
    SampleJob,
    Hello,
    Log,
    RunStart,
    DataReady,
    TrainStart,
    TrainStep,
    HeldOut,
    FileRef,
    Checkpoint,
    CacheUse,
    RunResult,
    TrainResult,
    MergeResult,
    LogprobsFile,
    ScoreResult,
    LogprobsResult,
    SampledResponse,
    Block,
    SampleResult,
    Failure,
  ]) {
    const id = schema.meta()?.id;
    if (id !== undefined) registry.add(schema, { id });
  }
  return `${JSON.stringify(z.toJSONSchema(registry, { io: "output" }), null, 2)}\n`;
}

/** Both ends compare this; a bridge generated from another schema is refused before it does any work. */
export const SCHEMA_SHA256 = createHash("sha256").update(wireJsonSchema()).digest("hex");
