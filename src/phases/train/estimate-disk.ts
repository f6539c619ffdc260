import { expectedTensors, type ModelConfig } from "../../formats/model-config.ts";
import type { LoraShape, TrainingArguments } from "../../records/lora.ts";
import { dtypeBytes, optimizerBytes } from "./estimate-memory.ts";
import { FLOAT32, layerShapes } from "./layer-costs.ts";

/** Bytes on disk. */
export interface DiskUse {
  /** The weights of one checkpoint. Exact for an adapter, its file's header included. */
  checkpoint: number;
  checkpoints: number;
  /** What going on from the last step needs. */
  last: number;
  total: number;
}

interface Tensor {
  name: string;
  shape: readonly number[];
}

/** The tensors of an adapter's file, under PEFT's names. Source: PEFT 0.21 `utils/save_and_load.py`. */
function adapterTensors(config: ModelConfig, lora: LoraShape): Tensor[] {
  const linear = layerShapes(config, lora).flatMap((layer) => Object.values(layer.linear));
  return linear
    .filter(({ r }) => r > 0)
    .flatMap(({ name, n_in, n_out, r }) => {
      const prefix = `base_model.model.${name}`;
      return [
        { name: `${prefix}.lora_A.weight`, shape: [r, n_in] },
        { name: `${prefix}.lora_B.weight`, shape: [n_out, r] },
        ...(lora.use_dora ? [{ name: `${prefix}.lora_magnitude_vector`, shape: [n_out] }] : []),
      ];
    });
}

/**
 * Bytes of a safetensors file of tensors of one dtype, as the Python library writes it.
 *
 * Source: safetensors 0.8: an 8-byte length, a JSON header padded with blanks to a multiple of 8, the tensors by name.
 */
function safetensorsBytes(tensors: readonly Tensor[], dtype: string, width: number): number {
  let offset = 0;
  const sorted = [...tensors].sort((a, b) => (a.name < b.name ? -1 : 1));
  const entries = sorted.map(({ name, shape }) => {
    const start = offset;
    offset += shape.reduce((product, size) => product * size, width);
    return [name, { dtype, shape, data_offsets: [start, offset] }];
  });
  const header = JSON.stringify({ __metadata__: { format: "pt" }, ...Object.fromEntries(entries) });
  return 8 + 8 * Math.ceil(header.length / 8) + offset;
}

/** Bytes of the weights of one checkpoint: an adapter in float32, or the whole model in the dtype it is trained in. */
export function checkpointBytes(
  config: ModelConfig,
  lora: LoraShape | null,
  training: Pick<TrainingArguments, "dtype">,
): number {
  if (lora !== null) return safetensorsBytes(adapterTensors(config, lora), "F32", FLOAT32);
  const tensors = [...expectedTensors(config)].map(([name, shape]) => ({ name, shape }));
  const is_float32 = training.dtype === "float32";
  return safetensorsBytes(tensors, is_float32 ? "F32" : "BF16", dtypeBytes(training.dtype));
}

/** @param checkpoints how many. */
export function diskUse(
  config: ModelConfig,
  lora: LoraShape | null,
  training: Pick<TrainingArguments, "dtype" | "optim" | "load_in_4bit">,
  checkpoints: number,
): DiskUse {
  const checkpoint = checkpointBytes(config, lora, training);
  const last = stateBytes(config, lora, training);
  return { checkpoint, checkpoints: checkpoint * checkpoints, last, total: checkpoint * checkpoints + last };
}

/** Trained parameters and the optimizer's moments: what the device holds of them, without the gradients. */
function stateBytes(
  config: ModelConfig,
  lora: LoraShape | null,
  training: Pick<TrainingArguments, "dtype" | "optim" | "load_in_4bit">,
): number {
  const gradients_only = optimizerBytes(config, lora, { ...training, optim: "sgd" });
  const with_moments = optimizerBytes(config, lora, training);
  // Under SGD an adapter holds parameters and gradients, alike in size; a full fine-tune's parameters are its weights.
  return with_moments - (lora === null ? 0 : gradients_only / 2);
}
