import { expectedTensors, type ModelConfig } from "../../formats/model-config.ts";
import type { LoraShape, TrainingArguments } from "../../records/lora.ts";
import { FLOAT32, type LayerShape, layerShapes, splitOf } from "./layer-costs.ts";

/** The rows that are computed together. `slots` counts padding, `targets` the positions whose loss counts. */
export interface MicroBatch {
  rows: number;
  /** Positions of the longest row, padding included; of all rows where they are packed. */
  width: number;
  slots: number;
  targets: number;
  /** Whether rows differ in length: attention then gets a mask, which each layer keeps. */
  is_masked: boolean;
}

/** Bytes on the device, by what they are for. */
export interface DeviceMemory {
  weights: number;
  /** Trained parameters outside the base, all gradients, and the optimizer's moments. */
  adapter_and_optimizer: number;
  /** What autograd keeps of the largest micro-batch. */
  activations: number;
  /** The same with gradient checkpointing: the input of each layer, and one layer that is computed again. */
  activations_checkpointed: number;
  /** Logits of the positions that are computed at once. */
  logits: number;
  total: number;
  total_checkpointed: number;
}

type Shape = Pick<TrainingArguments, "dtype" | "load_in_4bit" | "optim">;

/** Float32 logits of a chunk. Source: python-bridge `head.py` `CHUNK_BYTES`. */
const CHUNK_BYTES = { cuda: 2 ** 29, cpu: 2 ** 25 };
/** int64 index of a target, and its label. */
const TARGET_BYTES = 16;
/**
 * Bytes of a weight in NF4 with double quantisation: half a byte, an 8-bit scale for each block of 64, a float32 for each
 * 256 of those. Source: Dettmers et al. 2023, "QLoRA" (arXiv 2305.14314), section 3.
 */
const NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256);
/** bitsandbytes keeps the moments of smaller tensors in float32, larger ones in a byte with a float32 for each 256. */
const SMALLEST_8BIT_TENSOR = 4096;
const MOMENT_8BIT_BYTES = 1 + 4 / 256;

export const dtypeBytes = (dtype: TrainingArguments["dtype"]): number => (dtype === "float32" ? 4 : 2);

/** Bytes of the base on the device. Embedding and output layer stay in the base's dtype under 4 bits. */
export function weightBytes(config: ModelConfig, { dtype, load_in_4bit }: Shape): number {
  let bytes = 0;
  for (const [name, shape] of expectedTensors(config)) {
    const is_4bit = load_in_4bit && /_proj\.weight$/.test(name);
    bytes += shape.reduce((product, size) => product * size, 1) * (is_4bit ? NF4_BYTES : dtypeBytes(dtype));
  }
  return Math.ceil(bytes);
}

/** Bytes of trained parameters outside the base, of gradients and of the optimizer's moments. */
export function optimizerBytes(config: ModelConfig, lora: LoraShape | null, training: Shape): number {
  const width = lora === null ? dtypeBytes(training.dtype) : FLOAT32;
  const own = lora === null ? 0 : width;
  const sizes = lora === null ? baseSizes(config) : adapterSizes(layerShapes(config, lora), lora.use_dora);
  return Math.ceil(sizes.reduce((sum, size) => sum + size * (own + width + momentBytes(size, width, training)), 0));
}

/** Bytes of the optimizer's state for each element of a tensor. */
function momentBytes(size: number, width: number, { optim }: Shape): number {
  if (optim === "sgd") return 0;
  if (optim === "adamw_torch") return 2 * width;
  return 2 * (size < SMALLEST_8BIT_TENSOR ? FLOAT32 : MOMENT_8BIT_BYTES);
}

const baseSizes = (config: ModelConfig): number[] =>
  [...expectedTensors(config).values()].map((shape) => shape.reduce((product, size) => product * size, 1));

function adapterSizes(layers: readonly LayerShape[], use_dora: boolean): number[] {
  const linear = layers.flatMap((layer) => Object.values(layer.linear)).filter(({ r }) => r > 0);
  return linear.flatMap(({ n_in, n_out, r }) => [r * n_in, r * n_out, ...(use_dora ? [n_out] : [])]);
}

/** What the bytes of a layer depend on beside its shape. */
interface Numbers {
  config: ModelConfig;
  /** Bytes of an element of the base's dtype. */
  s: number;
  batch: MicroBatch;
  has_dropout: boolean;
  use_dora: boolean;
}

/**
 * Bytes that autograd keeps of one decoder layer, for each position.
 *
 * Source: what torch 2.15 saves in transformers 5.23 `modeling_qwen2.py` and `modeling_qwen3.py` under sdpa and PEFT 0.21
 * `tuners/lora/layer.py`, counted with saved_tensors_hooks (test/integration/train/estimate.test.ts). A frozen linear
 * layer keeps nothing: the gradient of its input needs its weight only.
 */
function layerBytes(layer: LayerShape, numbers: Numbers): number {
  return attentionBytes(layer, numbers) + mlpBytes(layer, numbers);
}

/** RMSNorm keeps its input in float32 and the reciprocal root; a trained one its normed input too, in the base's dtype. */
const normBytes = (size: number, groups: number, is_full: boolean, s: number): number =>
  FLOAT32 * (size + groups) + (is_full ? s * size : 0);

function attentionBytes({ grad, linear, is_full }: LayerShape, numbers: Numbers): number {
  const { config, s, batch } = numbers;
  const { hidden_size, num_attention_heads: heads, num_key_value_heads: kv_heads } = config;
  const q = linear.q_proj.n_out;
  const kv = linear.k_proj.n_out;
  let bytes = grad.input ? normBytes(hidden_size, 1, is_full, s) : 0;
  if (config.model_type === "qwen3" && grad.q) bytes += normBytes(q, heads, is_full, s);
  if (config.model_type === "qwen3" && grad.k) bytes += normBytes(kv, kv_heads, is_full, s);
  if (grad.attention) {
    // A mask keeps attention from sharing key and value heads: they are repeated, and the mask is kept in the base's dtype.
    const repeated = batch.is_masked ? q : kv;
    bytes += s * (2 * q + 2 * repeated + (batch.is_masked ? batch.width : 0)) + FLOAT32 * heads;
  }
  if (is_full) bytes += s * hidden_size; // o_proj's input is attention's output, which is kept already
  const o_input = s === FLOAT32 && grad.attention && !numbers.has_dropout ? FLOAT32 * q : 0;
  const shared = linear.o_proj.r > 0 ? o_input : 0;
  const { q_proj, k_proj, v_proj, o_proj } = linear;
  return bytes + adapterInputs([q_proj, k_proj, v_proj], numbers) + adapterInputs([o_proj], numbers) - shared;
}

function mlpBytes({ grad, linear, is_full }: LayerShape, numbers: Numbers): number {
  const { config, s } = numbers;
  const { hidden_size, intermediate_size } = config;
  let bytes = grad.middle ? normBytes(hidden_size, 1, is_full, s) : 0;
  if (grad.gate) bytes += 2 * s * intermediate_size; // silu's input, and `up`, by which its output is multiplied
  if (grad.up) bytes += s * intermediate_size; // silu(gate)
  if (is_full) bytes += s * (hidden_size + intermediate_size);
  return (
    bytes + adapterInputs([linear.gate_proj, linear.up_proj], numbers) + adapterInputs([linear.down_proj], numbers)
  );
}

/** What adapters on linear layers with one common input keep: that input in float32, and A x. */
function adapterInputs(shapes: LayerShape["linear"][keyof LayerShape["linear"]][], numbers: Numbers): number {
  const adapted = shapes.filter(({ r }) => r > 0);
  const [first] = adapted;
  if (first === undefined) return 0;
  const { s, has_dropout, use_dora } = numbers;
  // Each adapter casts its input on its own; in float32 there is nothing to cast, and they keep the same tensor.
  const copies = s === FLOAT32 && !has_dropout ? 1 : adapted.length;
  const per_input = FLOAT32 * first.n_in + (has_dropout ? first.n_in : 0);
  const outputs = adapted.reduce((sum, { n_out, r }) => sum + FLOAT32 * r + (use_dora ? 2 * FLOAT32 * n_out : 0), 0);
  return copies * per_input + outputs;
}

/**
 * Bytes that autograd keeps of a whole micro-batch; with gradient checkpointing the checkpoints, and one layer at a time.
 * Exact but for what the allocator rounds up.
 */
export function activationBytes(
  config: ModelConfig,
  lora: LoraShape | null,
  training: Pick<TrainingArguments, "dtype">,
  batch: MicroBatch,
): { plain: number; checkpoints: number; largest_layer: number } {
  const s = dtypeBytes(training.dtype);
  const layers = layerShapes(config, lora);
  const above = layers.slice(splitOf(layers));
  const numbers = { config, s, batch, has_dropout: (lora?.lora_dropout ?? 0) > 0, use_dora: lora?.use_dora ?? false };
  const each = above.map((layer) => layerBytes(layer, numbers) * batch.slots);
  const rotary = above.some(({ grad }) => grad.attention) ? 2 * s * config.head_dim * batch.width : 0;
  const common = normBytes(config.hidden_size, 1, lora === null, s) * batch.slots + headBytes(config, lora, s, batch);
  const inputs = above.length * s * config.hidden_size * batch.slots;
  return {
    plain: each.reduce((sum, bytes) => sum + bytes, rotary + common),
    checkpoints: inputs + common,
    largest_layer: Math.max(...each),
  };
}

/** A frozen output layer keeps the gradient of its input; a trained one its input and the softmax. */
function headBytes(config: ModelConfig, lora: LoraShape | null, s: number, { targets, slots }: MicroBatch): number {
  const hidden = s * config.hidden_size + TARGET_BYTES;
  return lora === null ? targets * (hidden + FLOAT32 * config.vocab_size) + 8 * slots : targets * hidden;
}

/** Bytes of logits on the way: a frozen output layer is computed in chunks, a trained one at once. */
function logitBytes(config: ModelConfig, lora: LoraShape | null, s: number, targets: number, cuda: boolean): number {
  const all = targets * config.vocab_size * FLOAT32;
  const chunk = Math.min(all, CHUNK_BYTES[cuda ? "cuda" : "cpu"]);
  return lora === null ? all * (1 + s / FLOAT32) : chunk * (1 + s / FLOAT32);
}

/** Memory of training on the device, for its largest micro-batch. Not counted: libraries, and what the allocator rounds up. */
export function deviceMemory(
  config: ModelConfig,
  lora: LoraShape | null,
  training: Shape,
  batch: MicroBatch,
  cuda: boolean,
): DeviceMemory {
  const weights = weightBytes(config, training);
  const adapter_and_optimizer = optimizerBytes(config, lora, training);
  const { plain: activations, checkpoints, largest_layer } = activationBytes(config, lora, training, batch);
  const checkpointed = checkpoints + largest_layer;
  const logits = logitBytes(config, lora, dtypeBytes(training.dtype), batch.targets, cuda);
  const fixed = weights + adapter_and_optimizer + logits;
  return {
    ...{ weights, adapter_and_optimizer, activations, activations_checkpointed: checkpointed, logits },
    total: fixed + activations,
    total_checkpointed: fixed + checkpointed,
  };
}
