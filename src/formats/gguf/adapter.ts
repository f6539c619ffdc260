import { join } from "node:path";
import { DriverError } from "../../errors.ts";
import { isFloatDtype, toFloat32 } from "../floats.ts";
import { openSafetensors, readTensorF32, type TensorRef } from "../safetensors.ts";
import { patternConflict, patternValue } from "../target-modules.ts";
import {
  type AdapterScaling,
  invalidAdapter,
  readAdapterConfig,
  unsupportedAdapter,
  validateAdapterFiles,
} from "./adapter-config.ts";
import { ggufModuleName, layerIndex, moduleOfGguf } from "./names.ts";
import { readGguf, readGgufTensor } from "./read.ts";
import type { GgufValue } from "./types.ts";
import { f32, type GgufTensor, text, writeGguf } from "./write.ts";

/**
 * The factor that PEFT puts on `B A` of each module: `lora_alpha / r`, or `lora_alpha / sqrt(r)` with use_rslora, with
 * `rank_pattern` and `alpha_pattern` applied. Unitless.
 *
 * Source: PEFT 0.21 `tuners/lora/layer.py` `LoraLayer.update_layer`, `tuners/lora/model.py` `_create_and_replace`.
 */
export function adapterScales(config: AdapterScaling, modules: readonly string[]): Record<string, number> {
  return Object.fromEntries(
    modules.map((module) => {
      const r = moduleRank(config, module);
      const alpha = patternValue(config.alpha_pattern, module, "alpha_pattern") ?? config.lora_alpha;
      return [module, config.use_rslora ? alpha / Math.sqrt(r) : alpha / r];
    }),
  );
}

const moduleRank = (config: AdapterScaling, module: string): number =>
  patternValue(config.rank_pattern, module, "rank_pattern") ?? config.r;

export interface ConvertAdapterOptions {
  /** Architecture of the base model; llama.cpp refuses an adapter of another one. */
  architecture: "qwen2" | "qwen3";
  /** Keep only the modules of the first N decoder layers, to go with a base that was cut in the same way. */
  n_layers?: number;
}

/** Module names in `scales` are PEFT's, e.g. `model.layers.3.mlp.down_proj`. */
export interface ConvertedAdapter {
  sha256: string;
  bytes: number;
  scales: Record<string, number>;
}

/**
 * Writes a PEFT LoRA adapter as GGUF, in float32, with the scale of each module folded into its B.
 *
 * llama.cpp would apply one `alpha / r` to all modules; with `adapter.lora.alpha` 0 it applies B A as it is. Upstream's
 * converter drops use_rslora and the patterns, and the adapter then acts sqrt(r) times too weakly.
 *
 * Source: llama.cpp `src/llama-adapter.h` `llama_adapter_lora_weight::get_scale`, `convert_lora_to_gguf.py`.
 *
 * @throws DriverError ADAPTER_UNSUPPORTED for what llama.cpp cannot apply, ADAPTER_INVALID for damaged adapters.
 */
export async function convertAdapter(
  dir: string,
  out: string,
  options: ConvertAdapterOptions,
): Promise<ConvertedAdapter> {
  validateAdapterFiles(dir);
  const config = readAdapterConfig(dir);
  const file = join(dir, "adapter_model.safetensors");
  const pairs = readPairs(dir, file, config);
  for (const module of pairs.keys()) {
    if ((layerIndex(module) ?? 0) >= (options.n_layers ?? Number.POSITIVE_INFINITY)) pairs.delete(module);
  }
  if (pairs.size === 0) throw invalidAdapter(dir, ["expected LoRA weights of at least one module, got none"]);
  validatePatterns(dir, config, [...pairs.keys()]);
  const scales = adapterScales(config, [...pairs.keys()]);
  const tensors = [...pairs].flatMap(([module, pair]) => ggufPair(dir, file, module, pair, scales[module] as number));
  const metadata = new Map<string, GgufValue>([
    ["general.architecture", text(options.architecture)],
    ["general.type", text("adapter")],
    ["adapter.type", text("lora")],
    ["adapter.lora.alpha", f32(0)],
  ]);
  const { sha256, bytes } = await writeGguf(out, metadata, tensors);
  return { sha256, bytes, scales };
}

function validatePatterns(dir: string, config: AdapterScaling, modules: readonly string[]): void {
  const conflicts = (["rank_pattern", "alpha_pattern"] as const)
    .map((what) => patternConflict(config[what], modules, what))
    .filter((conflict) => conflict !== null);
  if (conflicts.length > 0) throw invalidAdapter(dir, conflicts);
}

interface Pair {
  a: TensorRef;
  b: TensorRef;
}

/** Both matrices of every module, checked against each other and against the config. */
function readPairs(dir: string, file: string, config: AdapterScaling): Map<string, Pair> {
  const halves = new Map<string, Partial<Pair>>();
  const unsupported: string[] = [];
  const invalid: string[] = [];
  for (const tensor of openSafetensors(file).tensors.values()) {
    const [, module = "", side] = /^base_model\.model\.(.+)\.lora_([AB])\.weight$/.exec(tensor.name) ?? [];
    if (ggufModuleName(module) !== undefined) {
      const pair = halves.get(module) ?? {};
      pair[side === "A" ? "a" : "b"] = tensor;
      halves.set(module, pair);
    } else
      (isUnsupported(tensor.name) ? unsupported : invalid).push(`tensor ${tensor.name} cannot be applied by llama.cpp`);
  }
  if (unsupported.length > 0) throw unsupportedAdapter(dir, unsupported);
  const pairs = new Map<string, Pair>();
  for (const [module, { a, b }] of halves) {
    if (a !== undefined && b !== undefined) {
      invalid.push(...pairProblems(module, { a, b }, moduleRank(config, module)));
      pairs.set(module, { a, b });
    } else invalid.push(`${module}: expected lora_A and lora_B, got only lora_${a === undefined ? "B" : "A"}`);
  }
  if (invalid.length > 0) throw invalidAdapter(dir, invalid);
  return pairs;
}

/** Tensors that PEFT writes for features that llama.cpp lacks: DoRA, biases, embeddings, whole modules, the output layer. */
function isUnsupported(name: string): boolean {
  return /lora_magnitude_vector|lora_[AB]\.bias|lora_embedding|modules_to_save|embed_tokens|lm_head|\.bias$/.test(name);
}

function pairProblems(module: string, { a, b }: Pair, r: number): string[] {
  const problems: string[] = [];
  for (const [name, tensor, rank] of [
    ["lora_A", a, a.shape[0]],
    ["lora_B", b, b.shape[1]],
  ] as const) {
    const shape = `[${tensor.shape.join(", ")}]`;
    if (!isFloatDtype(tensor.dtype))
      problems.push(`${module}: expected ${name} in F32, F16 or BF16, got ${tensor.dtype}`);
    if (tensor.shape.length !== 2 || tensor.bytes === 0) {
      problems.push(`${module}: expected ${name} to be a matrix, got shape ${shape}`);
    } else if (rank !== r) {
      problems.push(`${module}: expected rank ${r} as adapter_config.json says, got ${rank} in ${name} ${shape}`);
    }
  }
  return problems;
}

function ggufPair(dir: string, file: string, module: string, { a, b }: Pair, scale: number): GgufTensor[] {
  const half = (side: "a" | "b", tensor: TensorRef, factor: number): GgufTensor => ({
    name: `${ggufModuleName(module)}.weight.lora_${side}`,
    type: "F32",
    ne: [...tensor.shape].reverse(),
    chunks: () => [scaledBytes(dir, file, tensor, factor)],
  });
  return [half("a", a, 1), half("b", b, scale)];
}

/** Little-endian float32 of `factor * tensor`: the product in double precision, rounded once. */
function scaledBytes(dir: string, file: string, tensor: TensorRef, factor: number): Uint8Array {
  const values = readTensorF32(file, tensor);
  for (let i = 0; i < values.length; i++) {
    const value = (values[i] as number) * factor;
    values[i] = value;
    if (!Number.isFinite(values[i])) {
      throw invalidAdapter(dir, [`tensor ${tensor.name}: expected finite values, got ${value} at element ${i}`]);
    }
  }
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}

/** A row-major matrix; `shape` is torch's: `[rows, columns]`. */
export interface Matrix {
  data: Float32Array;
  shape: [number, number];
}

/** `a` is [r, n_in] and `b`, with the scale folded in, [n_out, r]. Keys are PEFT's module names. */
export interface AdapterGgufContent {
  architecture: string;
  /** 0 in files of this project: the scale is in B. */
  alpha: number;
  modules: Map<string, { a: Matrix; b: Matrix }>;
}

/**
 * All matrices of an adapter GGUF.
 *
 * @throws DriverError FORMAT_INVALID when the file is not a LoRA adapter, or a matrix is missing or unknown.
 */
export function readAdapterGguf(file: string): AdapterGgufContent {
  const gguf = readGguf(file);
  const value = (key: string) => gguf.metadata.get(key)?.value;
  if (value("general.type") !== "adapter" || value("adapter.type") !== "lora")
    throw notAdapter(file, "expected a LoRA adapter");
  const halves = new Map<string, { a?: Matrix; b?: Matrix }>();
  for (const tensor of gguf.tensors.values()) {
    const [, name = "", side] = /^(.+)\.weight\.lora_([ab])$/.exec(tensor.name) ?? [];
    const module = moduleOfGguf(name);
    const [columns, rows] = tensor.ne;
    if (module === undefined || !isFloatDtype(tensor.type) || columns === undefined || rows === undefined) {
      throw notAdapter(file, `expected only matrices of LoRA modules, got ${tensor.name}`);
    }
    const data = toFloat32(readGgufTensor(file, tensor), tensor.type);
    halves.set(module, { ...halves.get(module), [side as "a" | "b"]: { data, shape: [rows, columns] } });
  }
  const modules = new Map<string, { a: Matrix; b: Matrix }>();
  for (const [module, { a, b }] of halves) {
    if (a === undefined || b === undefined) throw notAdapter(file, `expected A and B of ${module}, got one of them`);
    modules.set(module, { a, b });
  }
  return {
    architecture: String(value("general.architecture")),
    alpha: Number(value("adapter.lora.alpha") ?? 0),
    modules,
  };
}

function notAdapter(file: string, message: string): DriverError {
  return new DriverError("FORMAT_INVALID", `Cannot read the adapter ${file}: ${message}`, { facts: { file } });
}
