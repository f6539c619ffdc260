import type { ModelConfig } from "../../formats/model-config.ts";
import type { LoraShape } from "../../records/lora.ts";
import { inputNeedsGrad, type LayerShape, layerShapes, splitOf } from "./layer-costs.ts";

/** Rows by what their cost depends on. `pairs`: positions that attend to each other, T (T + 1) / 2 a row. */
export interface Tokens {
  tokens: number;
  pairs: number;
  /** Positions on which the output layer runs. */
  targets: number;
}

/** Floating-point operations of one pass over some rows. */
export interface PassFlops {
  /** Forward below the lowest trained layer. */
  prefix: number;
  /** Forward from there on, with the output layer. */
  forward: number;
  backward: number;
}

/** Forward: scores and weighted sum. Source: 2 operations (one multiplication, one addition) for each element of both. */
const ATTENTION_FORWARD = 4;
/** Backward: the scores again and four products. Source: Dao 2023, "FlashAttention-2" (arXiv 2307.08691), section 3.1. */
const ATTENTION_BACKWARD = 2.5 * ATTENTION_FORWARD;

/**
 * Operations of one forward and backward pass. A matrix of N weights takes 2 N a token forward, 2 N for the gradient of its
 * input where that is needed, and 2 N for its own where it is trained. Norms and other work by elements do not count.
 *
 * Source: Kaplan et al. 2020, "Scaling laws for neural language models" (arXiv 2001.08361), section 2.1; checked against
 * torch.utils.flop_counter (test/integration/train/estimate.test.ts).
 */
export function passFlops(config: ModelConfig, lora: LoraShape | null, rows: Tokens): PassFlops {
  const layers = layerShapes(config, lora);
  const split = splitOf(layers);
  const width = config.num_attention_heads * config.head_dim;
  const add = (part: readonly LayerShape[], one: (layer: LayerShape) => number) =>
    part.reduce((sum, layer) => sum + one(layer), 0);
  const ahead = (layer: LayerShape) => layerForward(layer) * rows.tokens + ATTENTION_FORWARD * width * rows.pairs;
  const head = 2 * config.vocab_size * config.hidden_size * rows.targets;
  const above = layers.slice(split);
  const attention = (layer: LayerShape) => (layer.grad.attention ? ATTENTION_BACKWARD * width * rows.pairs : 0);
  return {
    prefix: add(layers.slice(0, split), ahead),
    forward: add(above, ahead) + head,
    backward:
      add(above, (layer) => layerBackward(layer) * rows.tokens + attention(layer)) + (lora === null ? 2 : 1) * head,
  };
}

/** Operations a token. */
function layerForward({ linear }: LayerShape): number {
  return Object.values(linear).reduce((sum, { n_in, n_out, r }) => sum + 2 * n_in * n_out + 2 * r * (n_in + n_out), 0);
}

/** Operations a token: gradients of inputs, of adapters, and of the weights where all are trained. */
function layerBackward(layer: LayerShape): number {
  return Object.entries(layer.linear).reduce((sum, [leaf, { n_in, n_out, r }]) => {
    const through = inputNeedsGrad(layer, leaf) ? 2 * n_in * n_out + 2 * r * n_in : 0;
    const adapter = r > 0 ? 2 * r * (n_in + n_out) + 2 * r * n_out : 0;
    return sum + through + adapter + (layer.is_full ? 2 * n_in * n_out : 0);
  }, 0);
}
