import type { LlamaContext, LlamaModel } from "node-llama-cpp";
import { EngineFailure } from "./failure.ts";

/**
 * The part of node-llama-cpp that its public API does not offer: the batch loop, one call per step.
 *
 * The public `evaluate` queues tokens and lets timing decide which sequences share a batch, so the same samples come
 * out of other batches on every run. Driving the loop ourselves makes the make-up of every batch a function of the
 * block alone, and is faster.
 *
 * Source: node-llama-cpp 3.22.1 `dist/bindings/AddonTypes.d.ts`, `llama/addon/AddonContext.cpp`, `AddonSampler.cpp`.
 */
export interface RawContext {
  /** Starts a batch of at most `size` tokens; the former batch is dropped. */
  initBatch(size: number): void;
  /** Appends tokens of one sequence; `logitIndexes` are indices into `tokens`, the answer their rows in the batch. */
  addToBatch(sequence: number, position: number, tokens: Uint32Array, logitIndexes: Uint32Array): Uint32Array;
  decodeBatch(): Promise<void>;
  /** Applies the sampler to one row; -1 when it yields no token. */
  sampleToken(row: number, sampler: RawSampler): Promise<number>;
  /** With `logits`, the answer's fourth entry is `[token, logit, token, logit, ...]` for the whole vocabulary. */
  sampleToken(
    row: number,
    sampler: RawSampler,
    probabilities: false,
    confidence: false,
    logits: true,
  ): Promise<[token: number, undefined, undefined, logits: number[]]>;
  /** Empties the sequence's KV cache. */
  disposeSequence(sequence: number): void;
  /** Copies the KV cache of `source` over that of `target`. */
  copySequenceStateFromOtherSequence(target: number, source: number): Promise<number>;
}

/** Settings that are absent switch their sampler off; nothing has a default except the ones named here. */
export interface RawSamplerConfig {
  temperature: number;
  seed: number;
  minP?: number;
  topK?: number;
  topP?: number;
}

export interface RawSampler {
  applyConfig(config: RawSamplerConfig): void;
  dispose(): void;
}

const CONTEXT_METHODS = [
  "initBatch",
  "addToBatch",
  "decodeBatch",
  "sampleToken",
  "disposeSequence",
  "copySequenceStateFromOtherSequence",
] as const;

/** @throws {EngineFailure} `ENGINE` when another node-llama-cpp is installed than the one this was written against. */
export function rawContext(context: LlamaContext): RawContext {
  const raw = (context as unknown as { _ctx?: Record<string, unknown> })._ctx;
  for (const method of CONTEXT_METHODS) if (typeof raw?.[method] !== "function") throw changed(`_ctx.${method}`);
  return raw as unknown as RawContext;
}

/**
 * A sampler with no state, to be used for one response only: given the seed it already has, `applyConfig` would go on
 * with the random stream where it stopped.
 *
 * @throws {EngineFailure} `ENGINE` as above.
 */
export function createSampler(model: LlamaModel, config: RawSamplerConfig): RawSampler {
  const { _llama: llama, _model: raw } = model as unknown as {
    _llama?: { _bindings?: { AddonSampler?: new (model: unknown) => RawSampler } };
    _model?: unknown;
  };
  const AddonSampler = llama?._bindings?.AddonSampler;
  if (AddonSampler === undefined || raw === undefined) throw changed("_bindings.AddonSampler");
  const sampler = new AddonSampler(raw);
  if (typeof sampler.applyConfig !== "function") throw changed("AddonSampler.applyConfig");
  sampler.applyConfig(config);
  return sampler;
}

function changed(name: string): EngineFailure {
  return new EngineFailure("ENGINE", `node-llama-cpp has no ${name}: expected version 3.22.1, got another`, {
    hint: "Run `npm ci` to install the pinned version.",
  });
}
