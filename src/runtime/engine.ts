import { existsSync } from "node:fs";
import {
  getLlama,
  getModuleVersion,
  type Llama,
  type LlamaContext,
  LlamaLogLevel,
  type LlamaModel,
  NoBinaryFoundError,
} from "node-llama-cpp";
import { EngineFailure } from "./failure.ts";
import { type RawContext, rawContext } from "./internals.ts";

/** Tokens decoded at once. Source: llama.cpp `common/common.h` `n_ubatch` = 512. */
export const BATCH_TOKENS = 512;
/** llama.cpp rounds the cells of a sequence up to this. Source: llama.cpp `src/llama-context.cpp` `GGML_PAD(.., 256)`. */
const CONTEXT_PAD_TOKENS = 256;
/** Lines of llama.cpp's errors kept to explain a failed load, which itself gives no reason. */
const KEPT_ERROR_LINES = 4;

/** What sampling uses; the as-served parity check must ask for the same. F16 is llama.cpp's default KV type. */
export const AS_SERVED = { kv_type: "F16", flash_attention: true } as const;

export interface Engine {
  llama: Llama;
  device: string;
  packages: Record<string, string>;
  /** The last error lines of llama.cpp, oldest first. */
  errorLines(): string[];
}

export interface ContextOptions {
  adapter: { gguf: string; scale: number } | null;
  sequences: number;
  /** Per sequence. */
  context_tokens: number;
  kv_type: "F32" | "F16";
  flash_attention: boolean;
  num_threads: number;
}

export interface OpenContext extends AsyncDisposable {
  raw: RawContext;
  context: LlamaContext;
}

/**
 * Loads llama.cpp. Its log goes to stderr.
 *
 * `maxThreads` must be given: on a CPU the default is at least four and oversubscribed cores decode 300 times slower.
 *
 * @throws {EngineFailure} `ENGINE` when there is no build of llama.cpp for this machine.
 */
export async function openEngine(options: { gpu: boolean; num_threads: number }): Promise<Engine> {
  const errors: string[] = [];
  const llama = await getLlama({
    gpu: options.gpu ? "auto" : false,
    build: "never",
    maxThreads: options.num_threads,
    logLevel: LlamaLogLevel.info,
    logger: (level, message) => {
      process.stderr.write(`${message.trimEnd()}\n`);
      if (level !== LlamaLogLevel.error && level !== LlamaLogLevel.fatal) return;
      errors.push(message.trim());
      if (errors.length > KEPT_ERROR_LINES) errors.shift();
    },
  }).catch((cause: unknown) => {
    throw new EngineFailure("ENGINE", `llama.cpp cannot be loaded: ${(cause as Error).message}`, {
      ...(cause instanceof NoBinaryFoundError ? { hint: "Run `npm ci`; optional packages must not be omitted." } : {}),
      cause,
    });
  });
  if (options.gpu && llama.gpu === false)
    throw new EngineFailure("ENGINE", "A GPU was asked for: expected a GPU build of llama.cpp, got a CPU build", {
      hint: "Run `npx node-llama-cpp source download --gpu cuda`, or sample on the CPU.",
    });
  return {
    llama,
    device: await deviceName(llama),
    packages: { "node-llama-cpp": await getModuleVersion(), "llama.cpp": llama.llamaCppRelease.release },
    errorLines: () => [...errors],
  };
}

async function deviceName(llama: Llama): Promise<string> {
  if (llama.gpu === false) return "cpu";
  return [llama.gpu, ...(await llama.getGpuDeviceNames())].join(" ");
}

/** @throws {EngineFailure} `BAD_MODEL` when the file is missing or llama.cpp rejects it. */
export async function loadModel(engine: Engine, gguf: string): Promise<LlamaModel> {
  if (!existsSync(gguf)) throw new EngineFailure("BAD_MODEL", `No such file: ${gguf}`);
  try {
    return await engine.llama.loadModel({ modelPath: gguf, gpuLayers: engine.llama.gpu === false ? 0 : "max" });
  } catch (cause) {
    throw rejected(engine, `llama.cpp cannot load ${gguf}`, cause);
  }
}

/** Rows of the embedding: the length of a row of logits. */
export function vocabSizeOf(model: LlamaModel): number {
  const embedding = model.fileInfo.fullTensorInfo?.find(({ name }) => name === "token_embd.weight");
  const rows = Number(embedding?.dimensions[1]);
  if (!Number.isInteger(rows)) throw new EngineFailure("BAD_MODEL", "The base GGUF has no token_embd.weight");
  return rows;
}

/**
 * One adapter, or none, over the loaded base. Never shrinks what was asked for.
 *
 * @throws {EngineFailure} `BAD_MODEL` when llama.cpp rejects the adapter.
 */
export async function openContext(engine: Engine, model: LlamaModel, options: ContextOptions): Promise<OpenContext> {
  const { adapter } = options;
  if (adapter !== null && !existsSync(adapter.gguf))
    throw new EngineFailure("BAD_MODEL", `No such file: ${adapter.gguf}`);
  try {
    const context = await model.createContext({
      sequences: options.sequences,
      contextSize: Math.ceil(options.context_tokens / CONTEXT_PAD_TOKENS) * CONTEXT_PAD_TOKENS,
      batchSize: Math.max(BATCH_TOKENS, options.sequences),
      threads: options.num_threads,
      flashAttention: options.flash_attention,
      experimentalKvCacheKeyType: options.kv_type,
      experimentalKvCacheValueType: options.kv_type,
      failedCreationRemedy: false,
      ...(adapter === null ? {} : { lora: { adapters: [{ filePath: adapter.gguf, scale: adapter.scale }] } }),
    });
    return { raw: rawContext(context), context, [Symbol.asyncDispose]: () => context.dispose() };
  } catch (cause) {
    throw rejected(engine, `llama.cpp cannot use ${adapter?.gguf ?? "this context"}`, cause);
  }
}

function rejected(engine: Engine, what: string, cause: unknown): unknown {
  if (cause instanceof EngineFailure || (cause as Error).name === "InsufficientMemoryError") return cause;
  const reason = [(cause as Error).message, ...engine.errorLines()].join("\n  ");
  return new EngineFailure("BAD_MODEL", `${what}: ${reason}`, { cause });
}
