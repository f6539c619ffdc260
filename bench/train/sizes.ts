/** Sizes of a Qwen2 model, named as in its config. */
export interface Shape {
  num_hidden_layers: number;
  hidden_size: number;
  intermediate_size: number;
  num_attention_heads: number;
  num_key_value_heads: number;
  vocab_size: number;
}

/** Source: config.json of Qwen/Qwen2.5-14B. */
export const QWEN25_14B: Shape = {
  num_hidden_layers: 48,
  hidden_size: 5120,
  intermediate_size: 13_824,
  num_attention_heads: 40,
  num_key_value_heads: 8,
  vocab_size: 152_064,
};

/** Source: config.json of Qwen/Qwen2.5-0.5B, but for the vocabulary. */
const QWEN25_0_5B = {
  num_hidden_layers: 24,
  hidden_size: 896,
  intermediate_size: 4864,
  num_attention_heads: 14,
  num_key_value_heads: 2,
};

export interface Size {
  shape: Shape;
  /** Optimizer steps of one pass over the rows. */
  steps_per_epoch: number;
}

/** `0.5b` takes minutes a step on a CPU, `small` seconds; `tiny` shows equality only. */
export const SIZES = {
  "0.5b": { shape: withVocabulary(QWEN25_0_5B), steps_per_epoch: 1 },
  small: {
    shape: withVocabulary({
      num_hidden_layers: 12,
      hidden_size: 384,
      intermediate_size: 2048,
      num_attention_heads: 6,
      num_key_value_heads: 2,
    }),
    steps_per_epoch: 2,
  },
  tiny: {
    shape: withVocabulary({
      num_hidden_layers: 4,
      hidden_size: 128,
      intermediate_size: 384,
      num_attention_heads: 2,
      num_key_value_heads: 2,
    }),
    steps_per_epoch: 2,
  },
} satisfies Record<string, Size>;

export type SizeName = keyof typeof SIZES;

/** Part of `lm_head` in the weights of all matrices that a token is multiplied with, 0 to 1. */
export function headShare(shape: Shape): number {
  const head = shape.vocab_size * shape.hidden_size;
  return head / (head + layerWeights(shape));
}

/**
 * A shape whose `lm_head` has the part that it has in Qwen2.5-14B. With the full vocabulary of 151,936 it would be 28 % of
 * Qwen2.5-0.5B, and the benchmark would mostly measure output layers.
 */
function withVocabulary(sizes: Omit<Shape, "vocab_size">): Shape {
  const share = headShare(QWEN25_14B);
  return { ...sizes, vocab_size: Math.round(((share / (1 - share)) * layerWeights(sizes)) / sizes.hidden_size) };
}

/** Weights of the matrices of all decoder layers: q, o; k, v; gate, up, down. */
function layerWeights(shape: Omit<Shape, "vocab_size">): number {
  const { hidden_size: width, intermediate_size: inner } = shape;
  const key_value = (width / shape.num_attention_heads) * shape.num_key_value_heads;
  return shape.num_hidden_layers * width * (2 * width + 2 * key_value + 3 * inner);
}
