import { DriverError } from "../errors.ts";
import type { LoraShape } from "../records/lora.ts";
import type { ModelDir } from "./model-config.ts";
import { nearest } from "./nearest.ts";

const ATTENTION_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj"];
const MLP_LINEAR = ["gate_proj", "up_proj", "down_proj"];
const LAYER_LINEAR = [
  ...ATTENTION_LINEAR.map((name) => `self_attn.${name}`),
  ...MLP_LINEAR.map((name) => `mlp.${name}`),
];

const EXAMPLE = "model.layers.0.mlp.down_proj";

type Layout = Pick<ModelDir, "n_layers" | "architecture">;
type Targets = Pick<LoraShape, "target_modules" | "layers_to_transform" | "rank_pattern" | "alpha_pattern">;

/** Names of the linear layers inside the decoder layers, in order, e.g. `model.layers.3.mlp.down_proj`; not lm_head. */
export function linearModules(model: Pick<ModelDir, "n_layers">): string[] {
  return Array.from({ length: model.n_layers }, (_, layer) =>
    LAYER_LINEAR.map((name) => `model.layers.${layer}.${name}`),
  ).flat();
}

/** Names of all modules, as torch's `named_modules` gives them: PEFT matches against these, not only linear layers. */
function allModules(model: Layout): string[] {
  const norms = model.architecture === "qwen3" ? ["self_attn.q_norm", "self_attn.k_norm"] : [];
  const in_layer = ["self_attn", "mlp", "mlp.act_fn", "input_layernorm", "post_attention_layernorm", ...norms];
  const others = Array.from({ length: model.n_layers }, (_, layer) => {
    const prefix = `model.layers.${layer}`;
    return [prefix, ...in_layer.map((name) => `${prefix}.${name}`)];
  }).flat();
  const top = ["", "model", "model.embed_tokens", "model.layers", "model.norm", "model.rotary_emb", "lm_head"];
  return [...top, ...others, ...linearModules(model)];
}

function refuse(message: string, hint: string, facts: Record<string, unknown> = {}): DriverError {
  return new DriverError("CONFIG_INVALID", message, { hint, facts });
}

/**
 * The modules that PEFT would adapt, in the order of the model.
 *
 * A list entry matches a module of that name or that ends in `.` and that name; a string is a regular expression on the
 * whole name, or "all-linear". Stricter than PEFT where PEFT stays silent: every list entry, layer and pattern key must
 * match something, and nothing may match that llama.cpp cannot adapt.
 *
 * Source: PEFT 0.21 `tuners/tuners_utils.py` `check_target_module_exists`, `_maybe_include_all_linear_layers`;
 * `tuners/lora/config.py` `LoraConfig.__post_init__`.
 *
 * @throws DriverError CONFIG_INVALID naming the entry, and the nearest module name or the range of layers.
 */
export function resolveTargetModules(model: Layout, lora: Targets): string[] {
  validateLayers(model, lora.layers_to_transform);
  const matched = matchedModules(model, lora);
  const linear = linearModules(model);
  const adaptable = new Set(linear);
  const refused = matched.filter((name) => !adaptable.has(name));
  if (refused.length > 0) {
    const shown = refused.slice(0, 3).map((name) => (name === "" ? "the whole model" : name));
    throw refuse(
      `target_modules matches what cannot be adapted: expected linear layers of the decoder, got ${shown.join(", ")}`,
      `Name some of ${[...ATTENTION_LINEAR, ...MLP_LINEAR].join(", ")}.`,
      { refused },
    );
  }
  const chosen = new Set(matched);
  const modules = linear.filter((name) => chosen.has(name));
  validatePatterns("rank_pattern", lora.rank_pattern, modules);
  validatePatterns("alpha_pattern", lora.alpha_pattern, modules);
  return modules;
}

function validateLayers(model: Layout, layers: readonly number[] | null): void {
  const beyond = (layers ?? []).filter((layer) => layer >= model.n_layers);
  if (beyond.length === 0) return;
  throw refuse(
    `layers_to_transform names layers that do not exist: expected 0 to ${model.n_layers - 1}, got ${beyond.join(", ")}`,
    "Layers are counted from 0.",
    { beyond, n_layers: model.n_layers },
  );
}

function matchedModules(model: Layout, lora: Targets): string[] {
  const { target_modules, layers_to_transform } = lora;
  if (typeof target_modules !== "string") return matchedByList(model, target_modules, layers_to_transform);
  if (layers_to_transform !== null) {
    throw refuse(
      `layers_to_transform cannot be used when target_modules is a string, got ${JSON.stringify(target_modules)}`,
      "PEFT refuses the two together: give target_modules as a list of names.",
    );
  }
  if (target_modules.toLowerCase() === "all-linear") return linearModules(model);
  const pattern = compilePattern(target_modules, `^(?:${target_modules})$`, "target_modules");
  const matched = allModules(model).filter((name) => pattern.test(name));
  if (matched.length === 0) {
    throw refuse(
      `target_modules matches nothing: expected a regular expression on whole names such as ${EXAMPLE}, got ${JSON.stringify(target_modules)}`,
      "A string is a regular expression on the whole name: give a list to match the ends of names.",
    );
  }
  return matched;
}

function matchedByList(model: Layout, targets: readonly string[], layers: readonly number[] | null): string[] {
  const names = allModules(model);
  const matched = new Set<string>();
  for (const target of targets) {
    const hits = names.filter((name) => name === target || name.endsWith(`.${target}`));
    if (hits.length === 0) throw nothingMatches(model, target);
    // PEFT adapts a module given by its full name whatever layers_to_transform says.
    const kept = hits.filter((name) => name === target || layers === null || layers.includes(layerOf(name)));
    if (kept.length === 0)
      throw refuse(
        `target_modules: expected a module of layer ${layers?.join(", ")}, got ${JSON.stringify(target)}, which is not in these layers`,
        `Name some of ${[...ATTENTION_LINEAR, ...MLP_LINEAR].join(", ")}.`,
        { target },
      );
    for (const name of kept) matched.add(name);
  }
  return [...matched];
}

/** The layer index in a module's name, or -1. Source: the lazy pattern in PEFT's `check_target_module_exists`. */
function layerOf(name: string): number {
  const index = /^.*?\.[^.]*\.(\d+)\./.exec(name)?.[1];
  return index === undefined ? -1 : Number(index);
}

function nothingMatches(model: Layout, target: string): DriverError {
  const names = allModules(model);
  const suffixes = new Set([...ATTENTION_LINEAR, ...MLP_LINEAR, ...LAYER_LINEAR, ...names]);
  const guess = nearest(target, suffixes) ?? nearest(target.split(".").at(-1) ?? target, suffixes);
  return refuse(
    `target_modules matches nothing: expected the name of a module, got ${JSON.stringify(target)}`,
    guess === undefined ? `Name some of ${[...ATTENTION_LINEAR, ...MLP_LINEAR].join(", ")}.` : `Did you mean ${guess}?`,
    { target, nearest: guess },
  );
}

/** Under the "u" flag what Python and JavaScript read differently (`\Z`, `(?P<n>)`, `(?i)`) is an error, not a guess. */
function compilePattern(source: string, wrapped: string, what: string): RegExp {
  try {
    return new RegExp(wrapped, "u");
  } catch (cause) {
    throw refuse(
      `${what} has a pattern that cannot be used: expected a regular expression that Python and JavaScript read alike, got ${JSON.stringify(source)}`,
      `${(cause as Error).message}.`,
    );
  }
}

/**
 * The keys of a PEFT pattern that match the module as `^(.*\.)?(key)$`, in their order; PEFT uses the first.
 *
 * Source: PEFT 0.21 `utils/other.py` `get_pattern_key`.
 */
function matchingKeys(pattern: Readonly<Record<string, number>>, module: string, what: string): string[] {
  return Object.keys(pattern).filter((key) => compilePattern(key, `^(.*\\.)?(${key})$`, what).test(module));
}

/** The value that a PEFT pattern gives the module, or undefined. */
export function patternValue(
  pattern: Readonly<Record<string, number>>,
  module: string,
  what: string,
): number | undefined {
  const key = matchingKeys(pattern, module, what)[0];
  return key === undefined ? undefined : pattern[key];
}

/**
 * Why a pattern is ambiguous for some module, or null. PEFT uses the first key that matches, but sorts the keys when it
 * saves: with two that match and differ, the adapter acts with one scale while it is trained and another once loaded.
 */
export function patternConflict(
  pattern: Readonly<Record<string, number>>,
  modules: readonly string[],
  what: string,
): string | null {
  for (const module of modules) {
    const keys = matchingKeys(pattern, module, what);
    if (new Set(keys.map((key) => pattern[key])).size < 2) continue;
    const shown = keys.map((key) => `${JSON.stringify(key)}: ${pattern[key]}`).join(", ");
    return `${what}: expected one value for ${module}, got ${shown}`;
  }
  return null;
}

function validatePatterns(what: string, pattern: Readonly<Record<string, number>>, modules: readonly string[]): void {
  for (const key of Object.keys(pattern)) {
    if (modules.some((module) => matchingKeys({ [key]: 1 }, module, what).length > 0)) continue;
    throw refuse(
      `${what} has a key that matches no adapted module: expected a name or a pattern, got ${JSON.stringify(key)}`,
      `The adapted modules are ${modules.slice(0, 3).join(", ")}${modules.length > 3 ? " and so on" : ""}.`,
    );
  }
  const conflict = patternConflict(pattern, modules, what);
  if (conflict !== null)
    throw refuse(conflict, "PEFT sorts the keys when it saves, so their order cannot decide: make them disjoint.");
}
