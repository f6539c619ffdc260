/**
 * llama.cpp's names of the tensors of dense Qwen2 and Qwen3 models.
 *
 * Source: llama.cpp `gguf-py/gguf/tensor_mapping.py` and `gguf-py/gguf/constants.py` `TENSOR_NAMES`.
 */
const TOP: Readonly<Record<string, string>> = {
  "model.embed_tokens.weight": "token_embd.weight",
  "model.norm.weight": "output_norm.weight",
  "lm_head.weight": "output.weight",
};

const LINEAR: Readonly<Record<string, string>> = {
  "self_attn.q_proj": "attn_q",
  "self_attn.k_proj": "attn_k",
  "self_attn.v_proj": "attn_v",
  "self_attn.o_proj": "attn_output",
  "mlp.gate_proj": "ffn_gate",
  "mlp.up_proj": "ffn_up",
  "mlp.down_proj": "ffn_down",
};

const IN_LAYER: Readonly<Record<string, string>> = {
  ...LINEAR,
  input_layernorm: "attn_norm",
  post_attention_layernorm: "ffn_norm",
  "self_attn.q_norm": "attn_q_norm",
  "self_attn.k_norm": "attn_k_norm",
};

const LAYER = /^model\.layers\.(0|[1-9]\d{0,4})\.(.+)$/;

/** The layer of a decoder tensor or module (0-based), or null for the rest of the model. */
export function layerIndex(name: string): number | null {
  const layer = LAYER.exec(name)?.[1];
  return layer === undefined ? null : Number(layer);
}

/** llama.cpp's name of a tensor, e.g. `blk.3.ffn_down.weight`; undefined for a tensor that such models do not have. */
export function ggufTensorName(name: string): string | undefined {
  if (Object.hasOwn(TOP, name)) return TOP[name];
  const [, layer, rest = ""] = LAYER.exec(name) ?? [];
  const [, module = "", kind] = /^(.+)\.(weight|bias)$/.exec(rest) ?? [];
  if (!Object.hasOwn(IN_LAYER, module)) return undefined;
  return `blk.${layer}.${IN_LAYER[module]}.${kind}`;
}

/** llama.cpp's name of a linear layer that an adapter may touch, e.g. `blk.3.ffn_down`; undefined for all else. */
export function ggufModuleName(module: string): string | undefined {
  const [, layer, rest = ""] = LAYER.exec(module) ?? [];
  return Object.hasOwn(LINEAR, rest) ? `blk.${layer}.${LINEAR[rest]}` : undefined;
}

/** The inverse of `ggufModuleName`. */
export function moduleOfGguf(name: string): string | undefined {
  const [, layer, short] = /^blk\.(0|[1-9]\d{0,4})\.(\w+)$/.exec(name) ?? [];
  const long = Object.keys(LINEAR).find((key) => LINEAR[key] === short);
  return long === undefined ? undefined : `model.layers.${layer}.${long}`;
}
