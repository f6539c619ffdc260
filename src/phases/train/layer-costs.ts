import type { ModelConfig } from "../../formats/model-config.ts";
import { linearModules, resolveTargetModules } from "../../formats/model-dir.ts";
import { patternValue } from "../../formats/target-modules.ts";
import type { LoraShape } from "../../records/lora.ts";

/** The linear layers of a decoder layer, in the order in which they run. */
const LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"] as const;
type Linear = (typeof LINEAR)[number];

/** A linear layer: sizes in elements, `r` of its adapter or 0. */
export interface LinearShape {
  name: string;
  n_in: number;
  n_out: number;
  r: number;
}

/** A decoder layer with what of it needs a gradient. */
export interface LayerShape {
  linear: Record<Linear, LinearShape>;
  /** Which values inside the layer need a gradient. All true above the lowest trained layer. */
  grad: Record<"input" | "q" | "k" | "v" | "attention" | "middle" | "gate" | "up" | "product" | "output", boolean>;
  /** Whether the layer's own weights are trained. */
  is_full: boolean;
}

/** Bytes of a float32, in which adapters, norms and softmaxes are computed whatever the base is in. */
export const FLOAT32 = 4;

/** Sizes of a linear layer, [in, out], by the last part of its name. Source: transformers' Qwen2 and Qwen3 modelling code. */
function linearSize(config: ModelConfig, name: Linear): [n_in: number, n_out: number] {
  const { hidden_size, intermediate_size, head_dim } = config;
  const q = config.num_attention_heads * head_dim;
  const kv = config.num_key_value_heads * head_dim;
  const sizes: Record<Linear, [number, number]> = {
    q_proj: [hidden_size, q],
    k_proj: [hidden_size, kv],
    v_proj: [hidden_size, kv],
    o_proj: [q, hidden_size],
    gate_proj: [hidden_size, intermediate_size],
    up_proj: [hidden_size, intermediate_size],
    down_proj: [intermediate_size, hidden_size],
  };
  return sizes[name];
}

/**
 * All decoder layers with what autograd has to differentiate of them.
 *
 * @param lora null: all weights are trained.
 * @throws {DriverError} `CONFIG_INVALID` when a module or layer does not exist.
 */
export function layerShapes(config: ModelConfig, lora: LoraShape | null): LayerShape[] {
  const layout = { n_layers: config.num_hidden_layers, architecture: config.model_type };
  const adapted = new Set(lora === null ? [] : resolveTargetModules(layout, lora));
  const names = linearModules(layout);
  let reached = lora === null;
  return Array.from({ length: config.num_hidden_layers }, (_, layer) => {
    const own = names.slice(layer * LINEAR.length, (layer + 1) * LINEAR.length);
    const linear = Object.fromEntries(
      LINEAR.map((leaf, index) => [leaf, linearShape(config, leaf, own[index] as string, adapted, lora)]),
    ) as LayerShape["linear"];
    const shape = { linear, grad: gradients(linear, reached, lora === null), is_full: lora === null };
    reached = shape.grad.output;
    return shape;
  });
}

function linearShape(
  config: ModelConfig,
  leaf: Linear,
  name: string,
  adapted: ReadonlySet<string>,
  lora: LoraShape | null,
): LinearShape {
  const [n_in, n_out] = linearSize(config, leaf);
  const r = lora !== null && adapted.has(name) ? (patternValue(lora.rank_pattern, name, "rank_pattern") ?? lora.r) : 0;
  return { name, n_in, n_out, r };
}

/** How a need for gradients spreads from a layer's input and its adapters to its output. */
function gradients(linear: LayerShape["linear"], input: boolean, is_full: boolean): LayerShape["grad"] {
  const from = (needs: boolean, leaf: Linear) => needs || is_full || linear[leaf].r > 0;
  const q = from(input, "q_proj");
  const k = from(input, "k_proj");
  const v = from(input, "v_proj");
  const attention = q || k || v;
  const middle = input || from(attention, "o_proj");
  const gate = from(middle, "gate_proj");
  const up = from(middle, "up_proj");
  const product = gate || up;
  return { input, q, k, v, attention, middle, gate, up, product, output: middle || from(product, "down_proj") };
}

/** Whether the gradient of a linear layer's input is computed: 2 operations for each weight and token. */
export function inputNeedsGrad({ grad }: LayerShape, leaf: string): boolean {
  if (leaf === "o_proj") return grad.attention;
  if (leaf === "gate_proj" || leaf === "up_proj") return grad.middle;
  return leaf === "down_proj" ? grad.product : grad.input;
}

/** The lowest layer whose output needs a gradient: those below run without. */
export const splitOf = (layers: readonly LayerShape[]): number => layers.findIndex(({ grad }) => grad.output);
