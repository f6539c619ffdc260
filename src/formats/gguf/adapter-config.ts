import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { DriverError } from "../../errors.ts";

/** What decides the scale of a module, under PEFT's names. */
const Scaling = z.looseObject({
  r: z.int().positive(),
  lora_alpha: z.number(),
  use_rslora: z.boolean().default(false),
  rank_pattern: z.record(z.string(), z.int().positive()).nullish(),
  alpha_pattern: z.record(z.string(), z.number()).nullish(),
});

export interface AdapterScaling {
  r: number;
  lora_alpha: number;
  use_rslora: boolean;
  rank_pattern: Readonly<Record<string, number>>;
  alpha_pattern: Readonly<Record<string, number>>;
}

/**
 * Fields that do not change what a saved adapter computes, beside those that decide its scale.
 *
 * Source: PEFT 0.21 `tuners/lora/config.py` `LoraConfig`, `config.py` `PeftConfig`.
 */
const HARMLESS = new Set([
  ...[
    "peft_type",
    "task_type",
    "auto_mapping",
    "peft_version",
    "base_model_name_or_path",
    "revision",
    "inference_mode",
  ],
  ...["r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "lora_dropout", "target_modules"],
  ...["exclude_modules", "layers_to_transform", "layers_pattern", "megatron_core", "qalora_group_size"],
  ...["loftq_config", "eva_config", "corda_config", "lora_ga_config", "runtime_config", "ensure_weight_tying"],
  // Checked by validateFeatures.
  ...["bias", "init_lora_weights"],
]);

/** Ways to start an adapter that leave the base weights alone; the others change them, and the base GGUF is unchanged. */
const HARMLESS_INIT: ReadonlySet<unknown> = new Set([true, false, "gaussian", "orthogonal", "eva", undefined, null]);

export function invalidAdapter(dir: string, problems: readonly string[]): DriverError {
  return adapterError("ADAPTER_INVALID", dir, problems, "Train or download the adapter again.");
}

export function unsupportedAdapter(dir: string, problems: readonly string[]): DriverError {
  const hint =
    "llama.cpp can only apply plain LoRA on linear layers of the decoder: train without it, or merge the adapter.";
  return adapterError("ADAPTER_UNSUPPORTED", dir, problems, hint);
}

const LISTED_PROBLEMS = 20;

function adapterError(
  code: "ADAPTER_INVALID" | "ADAPTER_UNSUPPORTED",
  dir: string,
  problems: readonly string[],
  hint: string,
): DriverError {
  const listed = problems.slice(0, LISTED_PROBLEMS).map((problem) => `  ${problem}`);
  if (problems.length > listed.length) listed.push(`  ... and ${problems.length - listed.length} more`);
  return new DriverError(code, [`Cannot convert the adapter ${dir}:`, ...listed].join("\n"), {
    hint,
    facts: { dir, problems },
  });
}

/** Checks that both files of a PEFT adapter are there. Pickled weights are never opened: they could run code. */
export function validateAdapterFiles(dir: string): void {
  const missing = ["adapter_config.json", "adapter_model.safetensors"].filter((name) => !existsSync(join(dir, name)));
  if (missing.length === 0) return;
  const pickled = existsSync(dir) ? readdirSync(dir).filter((name) => name === "adapter_model.bin") : [];
  const problems = missing.map((name) => `${name} is missing`);
  throw invalidAdapter(dir, [
    ...problems,
    ...pickled.map((name) => `${name} could run code when read and is never opened`),
  ]);
}

/**
 * The scaling of a saved adapter.
 *
 * @throws DriverError ADAPTER_UNSUPPORTED naming every feature that llama.cpp cannot apply: it would be dropped without
 * a word. A field that this version of PEFT does not have counts as such unless it is null, false or empty.
 */
export function readAdapterConfig(dir: string): AdapterScaling {
  let json: Record<string, unknown>;
  try {
    json = JSON.parse(readFileSync(join(dir, "adapter_config.json"), "utf8")) as Record<string, unknown>;
  } catch (error) {
    throw invalidAdapter(dir, [`adapter_config.json: expected JSON, got an error: ${(error as Error).message}`]);
  }
  const parsed = Scaling.safeParse(json);
  if (!parsed.success) {
    throw invalidAdapter(
      dir,
      parsed.error.issues.map((issue) => `adapter_config.json: ${issue.path.join(".")}: ${issue.message}`),
    );
  }
  const unsupported = unsupportedFeatures(json);
  if (unsupported.length > 0) throw unsupportedAdapter(dir, unsupported);
  const { r, lora_alpha, use_rslora, rank_pattern, alpha_pattern } = parsed.data;
  return { r, lora_alpha, use_rslora, rank_pattern: rank_pattern ?? {}, alpha_pattern: alpha_pattern ?? {} };
}

function unsupportedFeatures(json: Record<string, unknown>): string[] {
  const problems: string[] = [];
  const { peft_type, bias, init_lora_weights } = json;
  if (peft_type !== "LORA") problems.push(`peft_type: expected "LORA", got ${JSON.stringify(peft_type)}`);
  if (bias !== "none" && bias !== undefined) problems.push(`bias: expected "none", got ${JSON.stringify(bias)}`);
  if (!HARMLESS_INIT.has(init_lora_weights)) {
    problems.push(
      `init_lora_weights: expected one that leaves the base alone, got ${JSON.stringify(init_lora_weights)}`,
    );
  }
  for (const [key, value] of Object.entries(json)) {
    if (!HARMLESS.has(key) && isSet(value)) problems.push(`${key}: expected it unset, got ${JSON.stringify(value)}`);
  }
  return problems;
}

function isSet(value: unknown): boolean {
  if (value === null || value === undefined || value === false) return false;
  return typeof value !== "object" || Object.keys(value).length > 0;
}
