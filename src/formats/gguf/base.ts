import { DriverError } from "../../errors.ts";
import { type FloatDtype, fromFloat32, toFloat32 } from "../floats.ts";
import { isUnusedTensor, type ModelDir, type ModelTensor } from "../model-config.ts";
import { floatDtype, readTensorBytes } from "../safetensors.ts";
import { ggufTensorName, layerIndex } from "./names.ts";
import { tokenizerMetadata } from "./tokenizer.ts";
import type { GgufValue } from "./types.ts";
import { f32, type GgufTensor, text, u32, type Written, writeGguf } from "./write.ts";

export interface ConvertBaseOptions {
  /** Dtype of the matrices; "keep" leaves each as it is stored. Vectors are always float32, as llama.cpp wants them. */
  dtype: "bf16" | "f16" | "f32" | "keep";
  /** Keep only the first N decoder layers. */
  n_layers?: number;
}

/** Source: llama.cpp `include/llama.h` `enum llama_ftype`. */
const FILE_TYPE: Readonly<Record<FloatDtype, number>> = { F32: 0, F16: 1, BF16: 32 };
const WANTED = { bf16: "BF16", f16: "F16", f32: "F32" } as const;

/**
 * Writes a dense Qwen2, Qwen2.5 or Qwen3 model as GGUF, a few MiB of memory at a time.
 *
 * Qwen's weights need neither the permutation of rotary heads nor the +1 on norms that other architectures need.
 *
 * Source: llama.cpp `convert_hf_to_gguf.py` `Qwen2Model`, `Qwen3Model`.
 *
 * @throws DriverError MODEL_INVALID when a value does not fit into F16, CONFIG_INVALID for an impossible `n_layers`.
 */
export async function convertBase(model: ModelDir, out: string, options: ConvertBaseOptions): Promise<Written> {
  const n_layers = options.n_layers ?? model.n_layers;
  if (!Number.isInteger(n_layers) || n_layers < 1 || n_layers > model.n_layers) {
    throw new DriverError("CONFIG_INVALID", `Cannot keep ${n_layers} layers: expected 1 to ${model.n_layers}`, {
      facts: { dir: model.dir, n_layers },
    });
  }
  const tensors = plannedTensors(model, options.dtype, n_layers);
  const embedding = tensors.find(({ name }) => name === "token_embd.weight");
  const metadata = new Map<string, GgufValue>([
    ...modelMetadata(model, n_layers, (embedding?.type ?? "F32") as FloatDtype),
    ...tokenizerMetadata(model.dir, model.vocab_size),
  ]);
  return writeGguf(out, metadata, tensors);
}

function modelMetadata(
  { architecture, config }: ModelDir,
  n_layers: number,
  dtype: FloatDtype,
): Map<string, GgufValue> {
  return new Map<string, GgufValue>([
    ["general.architecture", text(architecture)],
    ["general.type", text("model")],
    ["general.file_type", u32(FILE_TYPE[dtype])],
    ["general.quantization_version", u32(2)],
    [`${architecture}.block_count`, u32(n_layers)],
    [`${architecture}.context_length`, u32(config.max_position_embeddings)],
    [`${architecture}.embedding_length`, u32(config.hidden_size)],
    [`${architecture}.feed_forward_length`, u32(config.intermediate_size)],
    [`${architecture}.attention.head_count`, u32(config.num_attention_heads)],
    [`${architecture}.attention.head_count_kv`, u32(config.num_key_value_heads)],
    [`${architecture}.attention.key_length`, u32(config.head_dim)],
    [`${architecture}.attention.value_length`, u32(config.head_dim)],
    [`${architecture}.attention.layer_norm_rms_epsilon`, f32(config.rms_norm_eps)],
    [`${architecture}.rope.freq_base`, f32(config.rope_theta)],
  ]);
}

/** Every tensor of the kept layers. Without an output tensor llama.cpp uses the embedding, which is what tied means. */
function plannedTensors(model: ModelDir, dtype: ConvertBaseOptions["dtype"], n_layers: number): GgufTensor[] {
  const planned: GgufTensor[] = [];
  for (const [name, tensor] of model.tensors) {
    if (isUnusedTensor(name, model.config) || (layerIndex(name) ?? 0) >= n_layers) continue;
    const renamed = ggufTensorName(name);
    if (renamed === undefined)
      throw new DriverError("MODEL_INVALID", `Cannot convert ${name}: it is not part of ${model.architecture}`);
    const stored = floatDtype(tensor.file, tensor);
    const matrix_type = dtype === "keep" ? stored : WANTED[dtype];
    const type = tensor.shape.length === 1 ? "F32" : matrix_type;
    planned.push({
      name: renamed,
      type,
      ne: [...tensor.shape].reverse(),
      chunks: () => converted(tensor, stored, type),
    });
  }
  return planned;
}

async function* converted(tensor: ModelTensor, from: FloatDtype, to: FloatDtype): AsyncGenerator<Uint8Array> {
  for await (const chunk of readTensorBytes(tensor.file, tensor)) {
    if (from === to) {
      yield chunk;
      continue;
    }
    const values = toFloat32(chunk, from);
    if (to === "F16") validateHalfRange(tensor, values);
    yield fromFloat32(values, to);
  }
}

/** Source: the largest float32 that rounds to a finite half lies just below 65520 (IEEE 754-2019, 4.3.1). */
const HALF_LIMIT = 65_520;

function validateHalfRange(tensor: ModelTensor, values: Float32Array): void {
  const beyond = values.find((value) => Number.isFinite(value) && Math.abs(value) >= HALF_LIMIT);
  if (beyond === undefined) return;
  throw new DriverError(
    "MODEL_INVALID",
    `Cannot store ${tensor.name} as f16: expected values below 65520, got ${beyond}`,
    {
      hint: "Convert to bf16 or f32.",
      facts: { tensor: tensor.name, value: beyond },
    },
  );
}
