import { z } from "zod";
import type { TensorRef } from "./safetensors.ts";

export const ARCHITECTURES = ["qwen2", "qwen3"] as const;
export type Architecture = (typeof ARCHITECTURES)[number];

const CLASS_NAMES: Readonly<Record<Architecture, string>> = { qwen2: "Qwen2ForCausalLM", qwen3: "Qwen3ForCausalLM" };

const Rope = z.looseObject({
  rope_type: z.string().optional(),
  type: z.string().optional(),
  rope_theta: z.number().positive().optional(),
  partial_rotary_factor: z.number().optional(),
});

/**
 * What vivarium needs of a config.json, with transformers' defaults filled in.
 *
 * Source: transformers 5 `models/qwen2/configuration_qwen2.py`, `models/qwen3/configuration_qwen3.py`.
 */
const RawConfig = z.looseObject({
  model_type: z.enum(ARCHITECTURES),
  architectures: z.array(z.string()).nullish(),
  vocab_size: z.int().positive(),
  hidden_size: z.int().positive(),
  intermediate_size: z.int().positive(),
  num_hidden_layers: z.int().positive().max(10_000),
  num_attention_heads: z.int().positive(),
  num_key_value_heads: z.int().positive().nullish(),
  head_dim: z.int().positive().nullish(),
  max_position_embeddings: z.int().positive().default(32_768),
  rms_norm_eps: z.number().positive().default(1e-6),
  tie_word_embeddings: z.boolean().default(false),
  hidden_act: z.string().default("silu"),
  use_sliding_window: z.boolean().nullish(),
  layer_types: z.array(z.string()).nullish(),
  attention_bias: z.boolean().nullish(),
  quantization_config: z.unknown().optional(),
  rope_theta: z.number().positive().nullish(),
  rope_parameters: Rope.nullish(),
  rope_scaling: Rope.nullish(),
});
type RawConfig = z.output<typeof RawConfig>;

/** The dimensions of a dense Qwen model, under transformers' names. */
export interface ModelConfig {
  model_type: Architecture;
  vocab_size: number;
  hidden_size: number;
  intermediate_size: number;
  num_hidden_layers: number;
  num_attention_heads: number;
  num_key_value_heads: number;
  head_dim: number;
  max_position_embeddings: number;
  rms_norm_eps: number;
  rope_theta: number;
  tie_word_embeddings: boolean;
}

/** A tensor of a sharded model: `file` is the path of its shard. */
export interface ModelTensor extends TensorRef {
  file: string;
}

export interface ModelDir {
  dir: string;
  config: ModelConfig;
  architecture: Architecture;
  n_layers: number;
  hidden_size: number;
  vocab_size: number;
  /** Whether the output layer is the input embedding; there is no lm_head tensor then. */
  tied: boolean;
  tensors: Map<string, ModelTensor>;
  /** Names of the safetensors files inside `dir`, sorted. */
  weight_files: string[];
}

/** The config, or every reason why this model cannot be used. */
export function parseModelConfig(json: unknown): { config: ModelConfig | null; problems: string[] } {
  const parsed = RawConfig.safeParse(json);
  if (!parsed.success)
    return { config: null, problems: parsed.error.issues.map((issue) => configProblem(issue, json)) };
  const raw = parsed.data;
  const problems = unsupported(raw);
  const head_dim = raw.head_dim ?? (raw.model_type === "qwen3" ? 128 : raw.hidden_size / raw.num_attention_heads);
  const num_key_value_heads = raw.num_key_value_heads ?? raw.num_attention_heads;
  if (!Number.isInteger(head_dim))
    problems.push(`config.json: expected hidden_size to be a multiple of num_attention_heads`);
  if (raw.num_attention_heads % num_key_value_heads !== 0) {
    problems.push(`config.json: expected num_attention_heads to be a multiple of num_key_value_heads`);
  }
  const rope_theta = raw.rope_parameters?.rope_theta ?? raw.rope_scaling?.rope_theta ?? raw.rope_theta ?? 10_000;
  const { model_type, vocab_size, hidden_size, intermediate_size, num_hidden_layers, num_attention_heads } = raw;
  const { max_position_embeddings, rms_norm_eps, tie_word_embeddings } = raw;
  const config = {
    ...{ model_type, vocab_size, hidden_size, intermediate_size, num_hidden_layers, num_attention_heads },
    ...{ num_key_value_heads, head_dim, max_position_embeddings, rms_norm_eps, rope_theta, tie_word_embeddings },
  };
  return { config, problems };
}

function configProblem(issue: z.core.$ZodIssue, json: unknown): string {
  const path = issue.path.join(".");
  const found = issue.path.reduce<unknown>((value, key) => (value as Record<PropertyKey, unknown> | null)?.[key], json);
  if (path === "model_type") {
    return `config.json: expected model_type ${ARCHITECTURES.join(" or ")}, got ${JSON.stringify(found)}`;
  }
  return `config.json: ${path === "" ? "the file" : path}: ${issue.message}, got ${JSON.stringify(found)}`;
}

/** Variants of the two architectures that compute something else than the plain model; each is refused by name. */
function unsupported(raw: RawConfig): string[] {
  const problems: string[] = [];
  const want = (ok: boolean, what: string, expected: string, got: unknown) => {
    if (!ok) problems.push(`config.json: expected ${what} ${expected}, got ${JSON.stringify(got)}`);
  };
  const { architectures, model_type, hidden_act, use_sliding_window, layer_types, attention_bias } = raw;
  const class_name = CLASS_NAMES[model_type];
  want(architectures?.includes(class_name) ?? true, "architectures", `["${class_name}"]`, architectures);
  want(hidden_act === "silu", "hidden_act", `"silu"`, hidden_act);
  want(use_sliding_window !== true, "use_sliding_window", "false", use_sliding_window);
  want(
    layer_types?.every((type) => type === "full_attention") ?? true,
    "layer_types",
    `all "full_attention"`,
    layer_types,
  );
  want(attention_bias !== true, "attention_bias", "false", attention_bias);
  want((raw.quantization_config ?? null) === null, "no", "quantization_config", raw.quantization_config);
  for (const key of ["rope_parameters", "rope_scaling"] as const) {
    const type = raw[key]?.rope_type ?? raw[key]?.type ?? "default";
    want(type === "default", `${key}.rope_type`, `"default"`, type);
    const rotated = raw[key]?.partial_rotary_factor ?? 1;
    want(rotated === 1, `${key}.partial_rotary_factor`, "1", rotated);
  }
  return problems;
}

/** Shape of every tensor that the model must have, in the order of the computation. Source: transformers' modelling code. */
export function expectedTensors(config: ModelConfig): Map<string, number[]> {
  const { hidden_size: d, intermediate_size: f, head_dim, vocab_size } = config;
  const q = config.num_attention_heads * head_dim;
  const kv = config.num_key_value_heads * head_dim;
  const shapes = new Map<string, number[]>([["model.embed_tokens.weight", [vocab_size, d]]]);
  for (let layer = 0; layer < config.num_hidden_layers; layer++) {
    const prefix = `model.layers.${layer}.`;
    const add = (name: string, shape: number[]) => shapes.set(prefix + name, shape);
    add("input_layernorm.weight", [d]);
    for (const [name, n_out] of Object.entries({ q_proj: q, k_proj: kv, v_proj: kv })) {
      add(`self_attn.${name}.weight`, [n_out, d]);
      if (config.model_type === "qwen2") add(`self_attn.${name}.bias`, [n_out]);
    }
    add("self_attn.o_proj.weight", [d, q]);
    if (config.model_type === "qwen3")
      for (const name of ["q_norm", "k_norm"]) add(`self_attn.${name}.weight`, [head_dim]);
    add("post_attention_layernorm.weight", [d]);
    for (const name of ["gate_proj", "up_proj"]) add(`mlp.${name}.weight`, [f, d]);
    add("mlp.down_proj.weight", [d, f]);
  }
  shapes.set("model.norm.weight", [d]);
  if (!config.tie_word_embeddings) shapes.set("lm_head.weight", [vocab_size, d]);
  return shapes;
}

/** Tensors that may be there and are not used: old checkpoints keep the rope table, tied models a copy of the embedding. */
export function isUnusedTensor(name: string, config: Pick<ModelConfig, "tie_word_embeddings">): boolean {
  return name.endsWith(".rotary_emb.inv_freq") || (config.tie_word_embeddings && name === "lm_head.weight");
}
