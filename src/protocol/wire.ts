import { createHash } from "node:crypto";
import { z } from "zod";
import { LoraShape, Rendering, TrainingArguments } from "../records/lora.ts";
import { Sampler } from "../records/sampler.ts";
import {
  CacheUse,
  Checkpoint,
  DataReady,
  FileRef,
  HeldOut,
  MergeJob,
  MergeResult,
  PrefixCache,
  RunResult,
  RunStart,
  TrainJob,
  TrainResult,
  TrainRun,
  TrainStart,
  TrainStep,
} from "./training.ts";

/**
 * Everything that crosses between the driver and its children (Python bridge, llama.cpp engine). Wire keys are
 * snake_case; tensors never cross, only their files. `scripts/gen-protocol.ts` writes JSON Schema and Python from this.
 */

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

export type ScoreJob = z.output<typeof ScoreJob>;
export type LogprobsJob = z.output<typeof LogprobsJob>;
export type SampleJob = z.output<typeof SampleJob>;
export type Job = z.output<typeof Job>;
export type Hello = z.output<typeof Hello>;
export type Block = z.output<typeof Block>;
export type Failure = z.output<typeof Failure>;
export type ChildEvent = z.output<typeof ChildEvent>;
export type ScoreResult = z.output<typeof ScoreResult>;
export type LogprobsResult = z.output<typeof LogprobsResult>;
export type SampleResult = z.output<typeof SampleResult>;
export type {
  DataReady,
  FileRef,
  MergeJob,
  MergeResult,
  RunResult,
  TrainJob,
  TrainResult,
  TrainRun,
  TrainStart,
  TrainStep,
} from "./training.ts";
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
