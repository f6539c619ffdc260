import type { LlamaModel } from "node-llama-cpp";
import type { Block, SampleJob, SampleResult } from "../protocol/wire.ts";
import type { Sampler } from "../records/sampler.ts";
import type { Send } from "./channel.ts";
import { AS_SERVED, BATCH_TOKENS, type Engine, loadModel, openContext, vocabSizeOf } from "./engine.ts";
import { EngineFailure } from "./failure.ts";
import { BlocksFile, loadInput, type SampleBlock, validateTokenIds } from "./inputs.ts";
import { createSampler, type RawContext, type RawSampler, type RawSamplerConfig } from "./internals.ts";

/** llama.cpp's limit. Source: llama.cpp `src/llama-cparams.h` `LLAMA_MAX_SEQ`. */
const MAX_SEQUENCES = 256;
/** llama.cpp takes 0xFFFFFFFF as "draw a seed from the machine". Source: llama.cpp `include/llama.h` `LLAMA_DEFAULT_SEED`. */
const MAX_SEED = 0xffff_fffe;
const NO_LOGITS = new Uint32Array(0);
const FIRST_LOGIT = Uint32Array.of(0);

/**
 * Samples the blocks of a job in order and sends each when it is done.
 *
 * A block's responses depend on the block, the model and the sampler only: blocks never share a batch, the cache is
 * emptied between them, and the make-up of every batch follows from the responses so far. So a block run again, alone
 * or after others, gives the same tokens on the same machine.
 */
export async function runSample(
  engine: Engine,
  job: SampleJob,
  send: Send,
  cancelled: AbortSignal,
): Promise<SampleResult> {
  const { blocks } = loadInput(job.blocks_file, BlocksFile);
  const model = await loadModel(engine, job.base_gguf);
  validateBlocks(blocks, job, { vocab_size: vocabSizeOf(model), context_tokens: model.trainContextSize });
  await using context = await openContext(engine, model, {
    ...AS_SERVED,
    adapter: job.adapter,
    sequences: Math.max(2, ...blocks.map(({ seeds }) => seeds.length)),
    context_tokens: Math.max(...blocks.map((block) => neededTokens(block, job)), 1),
    num_threads: job.num_threads,
  });
  const started = performance.now();
  let responseTokens = 0;
  for (const block of blocks) {
    const responses = await sampleBlock(context.raw, model, block, job, cancelled);
    responseTokens += responses.reduce((sum, { token_ids }) => sum + token_ids.length, 0);
    send({ type: "block", key: block.key, responses } satisfies Block);
  }
  const seconds = (performance.now() - started) / 1000;
  return { type: "sample_result", blocks: blocks.length, response_tokens: responseTokens, seconds };
}

/**
 * @param limits of the model: its vocabulary, and the context it was trained with.
 * @throws {EngineFailure} `BAD_DATA` for a block that cannot be sampled as asked. Nothing is truncated or shifted:
 *   a response to half a question would look like any other.
 */
export function validateBlocks(
  blocks: readonly SampleBlock[],
  job: SampleJob,
  limits: { vocab_size: number; context_tokens: number },
): void {
  const { max_new_tokens } = job.sampler;
  const limit = Math.min(job.context_tokens, limits.context_tokens);
  for (const block of blocks) {
    const { key, prompt_ids, seeds } = block;
    validateTokenIds(`Block ${key}`, prompt_ids, limits.vocab_size);
    const needed = neededTokens(block, job);
    if (needed > limit)
      throw new EngineFailure(
        "BAD_DATA",
        `Block ${key} does not fit: ${prompt_ids.length} prompt tokens + ${max_new_tokens} new tokens = ${needed}, ` +
          `expected at most ${limit} (context_tokens ${job.context_tokens}, the model's own limit ${limits.context_tokens})`,
        { hint: "Lower max_new_tokens or raise context_tokens." },
      );
    if (seeds.length > MAX_SEQUENCES)
      throw new EngineFailure("BAD_DATA", `Block ${key} has ${seeds.length} seeds, expected at most ${MAX_SEQUENCES}`);
    const bad = seeds.find((seed) => seed > MAX_SEED);
    if (bad !== undefined)
      throw new EngineFailure("BAD_DATA", `Block ${key}: expected seeds of at most ${MAX_SEED}, got ${bad}`);
  }
}

function neededTokens({ prompt_ids }: SampleBlock, { sampler }: SampleJob): number {
  return prompt_ids.length + sampler.max_new_tokens;
}

type SampledResponse = Block["responses"][number];

/** A response being sampled, and the sequence whose KV cache holds it. */
interface Stream {
  sampler: RawSampler;
  response: SampledResponse | undefined;
  token_ids: number[];
}

async function sampleBlock(
  raw: RawContext,
  model: LlamaModel,
  block: SampleBlock,
  job: SampleJob,
  cancelled: AbortSignal,
): Promise<SampledResponse[]> {
  const streams = block.seeds.map((seed): Stream => {
    return { sampler: createSampler(model, samplerConfig(job.sampler, seed)), response: undefined, token_ids: [] };
  });
  const sequences = Math.max(2, streams.length);
  try {
    for (let sequence = 0; sequence < sequences; sequence++) raw.disposeSequence(sequence);
    const row = await decodePrompt(raw, block.prompt_ids, cancelled);
    for (let sequence = 1; sequence < streams.length; sequence++)
      await raw.copySequenceStateFromOtherSequence(sequence, 0);
    await advance(
      raw,
      streams.map((stream) => [stream, row]),
      job,
    );
    await decodeResponses(raw, streams, block.prompt_ids.length, job, cancelled);
    return streams.map(({ response }) => response as SampledResponse);
  } finally {
    for (const { sampler } of streams) sampler.dispose();
  }
}

/**
 * Top-k, top-p and min-p cut the distribution at temperature 1, and temperature is applied to what is left: llama.cpp's
 * order, which differs from transformers' when temperature is not 1.
 *
 * Zero and one switch a setting off. `topK: 0` would sort the whole vocabulary for every token instead.
 *
 * Source: node-llama-cpp 3.22.1 `llama/addon/AddonSampler.cpp` `rebuildChainIfNeeded`.
 */
export function samplerConfig(sampler: Sampler, seed: number): RawSamplerConfig {
  return {
    temperature: sampler.temperature,
    seed,
    ...(sampler.top_k > 0 ? { topK: sampler.top_k } : {}),
    ...(sampler.top_p < 1 ? { topP: sampler.top_p } : {}),
    ...(sampler.min_p > 0 ? { minP: sampler.min_p } : {}),
  };
}

/** Decodes the prompt into sequence 0 and returns the row of its last token's logits. */
async function decodePrompt(raw: RawContext, ids: readonly number[], cancelled: AbortSignal): Promise<number> {
  let row = 0;
  for (let start = 0; start < ids.length; start += BATCH_TOKENS) {
    cancelled.throwIfAborted();
    const chunk = Uint32Array.from(ids.slice(start, start + BATCH_TOKENS));
    const last = start + chunk.length === ids.length;
    raw.initBatch(chunk.length);
    const rows = raw.addToBatch(0, start, chunk, last ? Uint32Array.of(chunk.length - 1) : NO_LOGITS);
    await raw.decodeBatch();
    row = rows[0] ?? row;
  }
  return row;
}

/** Steps all streams that have not ended, one token each, until none is left. */
async function decodeResponses(
  raw: RawContext,
  streams: readonly Stream[],
  promptTokens: number,
  job: SampleJob,
  cancelled: AbortSignal,
): Promise<void> {
  let active = await compact(raw, [...streams]);
  for (let step = 0; active.length > 0; step++) {
    cancelled.throwIfAborted();
    const rows = await decodeStep(raw, active, promptTokens + step);
    await advance(
      raw,
      active.map((stream, sequence) => [stream, rows[sequence] as number]),
      job,
    );
    active = await compact(raw, active);
  }
}

/**
 * Decodes the newest token of each stream; stream i is in sequence i.
 *
 * A lone stream gets a neighbour that decodes a meaningless token: for a batch of one token llama.cpp takes other
 * kernels, with other rounding, and a sample would depend on how long its neighbours were.
 */
async function decodeStep(raw: RawContext, active: readonly Stream[], position: number): Promise<number[]> {
  raw.initBatch(Math.max(2, active.length));
  const rows = active.map((stream, sequence) => {
    const token = Uint32Array.of(stream.token_ids.at(-1) as number);
    return raw.addToBatch(sequence, position, token, FIRST_LOGIT)[0] as number;
  });
  if (active.length === 1) {
    raw.disposeSequence(1);
    raw.addToBatch(1, 0, Uint32Array.of(0), NO_LOGITS);
  }
  await raw.decodeBatch();
  return rows;
}

/** Samples one token for each stream from its row of logits, and ends the streams that are done. */
async function advance(raw: RawContext, rows: readonly [Stream, number][], job: SampleJob): Promise<void> {
  const tokens = await Promise.all(rows.map(([stream, row]) => raw.sampleToken(row, stream.sampler)));
  for (const [index, [stream]] of rows.entries()) {
    const token = tokens[index] as number;
    if (token < 0) throw new EngineFailure("ENGINE", "llama.cpp sampled no token: the logits are not finite");
    if (job.stop_token_ids.includes(token)) stream.response = { token_ids: stream.token_ids, finish_reason: "stop" };
    else if (stream.token_ids.push(token) === job.sampler.max_new_tokens)
      stream.response = { token_ids: stream.token_ids, finish_reason: "length" };
  }
}

/**
 * Moves the last streams into the sequences of those that ended, so that the active ones stay in sequences 0, 1, 2, ...:
 * llama.cpp splits a batch at every gap. Returns the active streams by sequence.
 */
async function compact(raw: RawContext, streams: Stream[]): Promise<Stream[]> {
  const n = streams.filter(({ response }) => response === undefined).length;
  const movable = streams.map((stream, sequence) => ({ stream, sequence })).slice(n);
  const survivors = movable.filter(({ stream }) => stream.response === undefined);
  const active = streams.slice(0, n);
  for (const [sequence, stream] of active.entries()) {
    if (stream.response === undefined) continue;
    const moved = survivors.shift() as { stream: Stream; sequence: number };
    await raw.copySequenceStateFromOtherSequence(sequence, moved.sequence);
    active[sequence] = moved.stream;
  }
  return active;
}
