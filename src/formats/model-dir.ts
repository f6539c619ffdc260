import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { basename, join } from "node:path";
import { z } from "zod";
import { DriverError } from "../errors.ts";
import { isFloatDtype } from "./floats.ts";
import {
  expectedTensors,
  isUnusedTensor,
  type ModelConfig,
  type ModelDir,
  type ModelTensor,
  parseModelConfig,
} from "./model-config.ts";
import { openSafetensors } from "./safetensors.ts";

export type { Architecture, ModelConfig, ModelDir, ModelTensor } from "./model-config.ts";
export { linearModules, resolveTargetModules } from "./target-modules.ts";

const INDEX = "model.safetensors.index.json";
const SINGLE = "model.safetensors";
const Index = z.looseObject({ weight_map: z.record(z.string(), z.string()) });
/** So many problems are spelled out in the message; all are in `facts.problems`. */
const LISTED_PROBLEMS = 20;

/**
 * A folder with a dense Qwen2, Qwen2.5 or Qwen3 model as transformers saves it. Reads headers only, no weights.
 *
 * @throws DriverError MODEL_INVALID with all that is missing or unsupported, in the message and in `facts.problems`.
 */
export function openModelDir(dir: string): ModelDir {
  if (!existsSync(dir) || !statSync(dir).isDirectory()) {
    throw new DriverError("NOT_FOUND", `Cannot open the model ${dir}: expected a folder, got nothing there`, {
      hint: "Give the path of a folder with config.json and model.safetensors.",
      facts: { dir },
    });
  }
  const problems = ["tokenizer.json", "tokenizer_config.json"].filter((name) => !existsSync(join(dir, name)));
  const missing = problems.map((name) => `${name} is missing`);
  const { config, problems: config_problems } = readConfig(dir);
  const { tensors, weight_files, problems: weight_problems } = openWeights(dir);
  const tensor_problems = config !== null && weight_files.length > 0 ? checkTensors(config, tensors) : [];
  const all = [...missing, ...config_problems, ...weight_problems, ...tensor_problems];
  if (config === null || all.length > 0) throw modelError(dir, all);
  return {
    dir,
    config,
    architecture: config.model_type,
    n_layers: config.num_hidden_layers,
    hidden_size: config.hidden_size,
    vocab_size: config.vocab_size,
    tied: config.tie_word_embeddings,
    tensors,
    weight_files,
  };
}

function modelError(dir: string, problems: string[]): DriverError {
  const listed = problems.slice(0, LISTED_PROBLEMS).map((problem) => `  ${problem}`);
  if (problems.length > listed.length) listed.push(`  ... and ${problems.length - listed.length} more`);
  return new DriverError("MODEL_INVALID", [`Cannot use the model ${dir}:`, ...listed].join("\n"), {
    hint: "Use a complete folder of a dense Qwen2, Qwen2.5 or Qwen3 model in safetensors, as save_pretrained writes it.",
    facts: { dir, problems },
  });
}

/** Parsed JSON of a file in a model folder, or a problem that says why not. */
function readJson(path: string): { json: unknown; problem: string | null } {
  const name = basename(path);
  if (!existsSync(path)) return { json: null, problem: `${name} is missing` };
  try {
    return { json: JSON.parse(readFileSync(path, "utf8")), problem: null };
  } catch (error) {
    return { json: null, problem: `${name}: expected JSON, got an error: ${(error as Error).message}` };
  }
}

function readConfig(dir: string): { config: ModelConfig | null; problems: string[] } {
  const { json, problem } = readJson(join(dir, "config.json"));
  return problem === null ? parseModelConfig(json) : { config: null, problems: [problem] };
}

interface Weights {
  tensors: Map<string, ModelTensor>;
  weight_files: string[];
  problems: string[];
}

function openWeights(dir: string): Weights {
  if (existsSync(join(dir, INDEX))) return openSharded(dir);
  if (existsSync(join(dir, SINGLE))) return openShards(dir, [SINGLE]);
  const pickled = readdirSync(dir).filter((name) => /\.(bin|pt|pth|ckpt)$/.test(name));
  const got =
    pickled.length > 0 ? `: only ${pickled.join(", ")}, which could run code when read and is never opened` : "";
  return { tensors: new Map(), weight_files: [], problems: [`${SINGLE} is missing${got}`] };
}

function openSharded(dir: string): Weights {
  const { json, problem } = readJson(join(dir, INDEX));
  const index = Index.safeParse(json);
  if (problem !== null || !index.success) {
    return {
      tensors: new Map(),
      weight_files: [],
      problems: [problem ?? `${INDEX}: expected a weight_map of strings`],
    };
  }
  const wanted = Object.entries(index.data.weight_map);
  const names = [...new Set(wanted.map(([, shard]) => shard))].sort();
  const bad = names.filter((name) => !/^[\w.-]+\.safetensors$/.test(name) || name.startsWith("."));
  const problems = bad.map((name) => `${INDEX}: expected the name of a .safetensors file, got ${JSON.stringify(name)}`);
  const weights = openShards(
    dir,
    names.filter((name) => !bad.includes(name)),
  );
  weights.problems.push(...problems);
  for (const [tensor, shard] of wanted) {
    const found = weights.tensors.get(tensor);
    if (found !== undefined && basename(found.file) !== shard) {
      weights.problems.push(`${INDEX}: expected ${tensor} in ${shard}, got it in ${basename(found.file)}`);
    }
  }
  return weights;
}

function openShards(dir: string, names: string[]): Weights {
  const weights: Weights = { tensors: new Map(), weight_files: [], problems: [] };
  for (const name of names) {
    const file = join(dir, name);
    if (!existsSync(file)) {
      weights.problems.push(`${name} is missing`);
      continue;
    }
    weights.weight_files.push(name);
    try {
      addShard(weights, file);
    } catch (error) {
      if (!(error instanceof DriverError)) throw error;
      weights.problems.push(error.message);
    }
  }
  return weights;
}

function addShard(weights: Weights, file: string): void {
  for (const ref of openSafetensors(file).tensors.values()) {
    const other = weights.tensors.get(ref.name);
    if (other !== undefined)
      weights.problems.push(`${ref.name} is in ${basename(other.file)} and in ${basename(file)}`);
    weights.tensors.set(ref.name, { ...ref, file });
  }
}

function checkTensors(config: ModelConfig, tensors: Map<string, ModelTensor>): string[] {
  const expected = expectedTensors(config);
  const problems: string[] = [];
  for (const [name, shape] of expected) {
    const tensor = tensors.get(name);
    if (tensor === undefined) {
      const why = name === "lm_head.weight" ? " although config.json says tie_word_embeddings: false" : "";
      problems.push(`tensor ${name} is missing${why}`);
    } else if (tensor.shape.join() !== shape.join()) {
      problems.push(`tensor ${name}: expected shape [${shape.join(", ")}], got [${tensor.shape.join(", ")}]`);
    } else if (!isFloatDtype(tensor.dtype)) {
      problems.push(`tensor ${name}: expected F32, F16 or BF16, got ${tensor.dtype}`);
    }
  }
  for (const name of tensors.keys()) {
    if (!expected.has(name) && !isUnusedTensor(name, config))
      problems.push(`tensor ${name} is not part of ${config.model_type}`);
  }
  return problems;
}
