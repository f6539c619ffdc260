import { closeSync, mkdirSync, openSync, renameSync, writeSync } from "node:fs";
import { basename, join } from "node:path";
import type { LlamaModel } from "node-llama-cpp";
import type { LogprobsJob, LogprobsResult } from "../protocol/wire.ts";
import { BATCH_TOKENS, type Engine, loadModel, openContext, vocabSizeOf } from "./engine.ts";
import { EngineFailure } from "./failure.ts";
import { loadInput, PromptsFile, validateTokenIds } from "./inputs.ts";
import { createSampler, type RawContext, type RawSampler } from "./internals.ts";

const FLOAT_BYTES = 4;
const BASE_ID = "base";

/** Writes the log-probabilities of the base and of each adapter for every position of every prompt. */
export async function runLogprobs(engine: Engine, job: LogprobsJob, cancelled: AbortSignal): Promise<LogprobsResult> {
  const { prompts } = loadInput(job.prompts_file, PromptsFile);
  const model = await loadModel(engine, job.base_gguf);
  const vocabSize = vocabSizeOf(model);
  validatePrompts(prompts, vocabSize, model.trainContextSize);
  validateIds(job);
  mkdirSync(job.out_dir, { recursive: true });
  const files: LogprobsResult["files"] = [];
  for (const { id, gguf } of [{ id: BASE_ID, gguf: null }, ...job.adapters])
    files.push(await scoreOne(engine, model, job, { id, gguf, prompts, vocabSize, cancelled }));
  const positions = prompts.reduce((sum, ids) => sum + ids.length, 0);
  return { type: "logprobs_result", n_positions: positions, vocab_size: vocabSize, files };
}

function validatePrompts(prompts: readonly number[][], vocabSize: number, limit: number): void {
  for (const [index, ids] of prompts.entries()) {
    validateTokenIds(`Prompt ${index}`, ids, vocabSize);
    if (ids.length > limit)
      throw new EngineFailure("BAD_DATA", `Prompt ${index} has ${ids.length} tokens, expected at most ${limit}`);
  }
}

/** Ids become file names: they must not leave the folder, nor write over each other. */
function validateIds({ adapters }: LogprobsJob): void {
  const seen = new Set([BASE_ID]);
  for (const { id } of adapters) {
    if (basename(id) !== id || seen.has(id))
      throw new EngineFailure("BAD_JOB", `Adapter id ${JSON.stringify(id)}: expected a new file name`);
    seen.add(id);
  }
}

interface ScoreTask {
  id: string;
  /** Null scores the base alone. */
  gguf: string | null;
  prompts: readonly number[][];
  vocabSize: number;
  cancelled: AbortSignal;
}

/** A new context for each adapter: nothing of the last one can be left in a cache. */
async function scoreOne(
  engine: Engine,
  model: LlamaModel,
  job: LogprobsJob,
  task: ScoreTask,
): Promise<LogprobsResult["files"][number]> {
  const path = join(job.out_dir, `${task.id}.f32`);
  await using context = await openContext(engine, model, {
    ...job,
    adapter: task.gguf === null ? null : { gguf: task.gguf, scale: 1 },
    sequences: 1,
    context_tokens: Math.max(...task.prompts.map((ids) => ids.length)),
  });
  const sampler = createSampler(model, { temperature: 0, seed: 0 });
  const partial = `${path}.part`;
  const fd = openSync(partial, "w");
  let bytes = 0;
  try {
    for await (const row of logprobRows(context.raw, sampler, task)) bytes += writeRow(fd, row);
  } finally {
    closeSync(fd);
    sampler.dispose();
  }
  renameSync(partial, path); // whole or not at all
  return { id: task.id, path, bytes };
}

/** Yields one row a position. The array is reused: write it before asking for the next. */
async function* logprobRows(raw: RawContext, sampler: RawSampler, task: ScoreTask): AsyncGenerator<Float32Array> {
  const row = new Float32Array(task.vocabSize);
  for (const ids of task.prompts) {
    raw.disposeSequence(0);
    for (let start = 0; start < ids.length; start += BATCH_TOKENS) {
      const chunk = Uint32Array.from(ids.slice(start, start + BATCH_TOKENS));
      raw.initBatch(chunk.length);
      const outputs = raw.addToBatch(0, start, chunk, Uint32Array.from(chunk.keys()));
      await raw.decodeBatch();
      for (const output of outputs) {
        task.cancelled.throwIfAborted();
        const [, , , pairs] = await raw.sampleToken(output, sampler, false, false, true);
        logSoftmax(pairs, row);
        yield row;
      }
    }
  }
}

/**
 * Writes log p = l - max - ln sum exp(l - max), in nats, computed in float64 and rounded once, to `row[token]`.
 *
 * @param pairs `[token, logit, token, logit, ...]` for the whole vocabulary, in any order.
 * @throws {EngineFailure} `ENGINE` when the vocabulary is not covered or a logit is not finite: the row would look like
 *   a distribution and be none.
 */
export function logSoftmax(pairs: readonly number[], row: Float32Array): void {
  if (pairs.length !== 2 * row.length)
    throw new EngineFailure("ENGINE", `Expected ${row.length} logits, got ${pairs.length / 2}`);
  let max = -Infinity;
  for (let i = 1; i < pairs.length; i += 2) max = Math.max(max, pairs[i] as number);
  let sum = 0;
  for (let i = 1; i < pairs.length; i += 2) sum += Math.exp((pairs[i] as number) - max);
  const logNormalizer = max + Math.log(sum);
  if (!Number.isFinite(logNormalizer))
    throw new EngineFailure("ENGINE", "llama.cpp computed logits that are not finite");
  for (let i = 0; i < pairs.length; i += 2) row[pairs[i] as number] = (pairs[i + 1] as number) - logNormalizer;
}

function writeRow(fd: number, row: Float32Array): number {
  const bytes = Buffer.from(row.buffer, row.byteOffset, row.length * FLOAT_BYTES);
  for (let offset = 0; offset < bytes.length; ) offset += writeSync(fd, bytes, offset);
  return bytes.length;
}
