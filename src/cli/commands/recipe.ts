import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { DriverError } from "../../errors.ts";
import { type ModelConfig, parseModelConfig } from "../../formats/model-config.ts";
import { resolveTargetModules } from "../../formats/model-dir.ts";
import type { Library } from "../../pipeline/library.ts";
import {
  mergeRecipes,
  type Recipe,
  type RecipeFile,
  type ResolvedRecipe,
  resolveRecipe,
} from "../../records/recipe.ts";
import { defaultSource, RECIPE_NAMES } from "../../records/recipe-names.ts";
import { makeLibrary } from "../environment.ts";
import type { Io } from "../io.ts";
import { recipeFromFlags } from "../recipe-flags.ts";
import { renderValues, type ShownValue, showValue } from "../render/recipe.ts";

interface ShowFlags {
  model?: string;
  data?: string;
  set: string[];
}

/** `vivarium recipe list`: the ids of all recipes and what they are. */
export async function list(_args: string[][], _flags: unknown, io: Io): Promise<unknown> {
  const library = makeLibrary();
  const ids = library.list("recipes");
  const files = await Promise.all(ids.map(async (id) => ({ id, ...(await library.recipeFile(id)) })));
  const width = Math.max(...ids.map((id) => id.length));
  for (const { id, description } of files) io.say(`${id.padEnd(width)}  ${firstSentence(description ?? "")}`);
  io.say("\nNext: vivarium recipe show NAME");
  return { recipes: files.map(({ id, description }) => ({ id, description: description ?? null })) };
}

const firstSentence = (text: string): string => /^.*?\.(?=\s|$)/s.exec(text)?.[0] ?? text;

/** `vivarium recipe show`: every value with its source, resolved as far as model and data are named. */
export async function show([[name = ""] = []]: string[][], flags: ShowFlags, io: Io): Promise<unknown> {
  const library = makeLibrary();
  const file = await library.recipeFile(name);
  const own = recipeFromFlags({ set: flags.set });
  const { description = null, sources: _sources, ...recipe } = file;
  const target = await readTarget(library, flags);
  const resolved = resolve([recipe, own], target);
  const values = RECIPE_NAMES.map((key) => shownValue(key, { file, own, resolved, target }));
  if (description !== null) io.say(`${description}\n`);
  for (const line of renderValues(values)) io.say(line);
  for (const line of target.facts(resolved)) io.say(line);
  const { steps, checkpoints } = target.rows === null ? { steps: null, checkpoints: null } : resolved;
  return { recipe: name, description, values: byName(values), steps, checkpoints };
}

const byName = (values: readonly ShownValue[]): Record<string, Omit<ShownValue, "name">> =>
  Object.fromEntries(values.map(({ name, ...value }) => [name, value]));

/** What a recipe is shown for; null where nothing was named. */
interface Target {
  config: ModelConfig | null;
  rows: number | null;
  /** Lines below the values. */
  facts(resolved: ResolvedRecipe): string[];
}

async function readTarget(library: Library, flags: ShowFlags): Promise<Target> {
  const model = flags.model;
  const data = flags.data;
  const config = model === undefined ? null : readConfig((await library.model(model)).dir);
  const rows = data === undefined ? null : (await library.dataset(data)).rows.length;
  const facts = (resolved: ResolvedRecipe) => [
    ...(config === null ? [] : [`\n${model}: ${describeModules(config, resolved)}`]),
    ...(rows === null ? [] : [`\n${data}: ${describeSteps(rows, resolved)}`]),
  ];
  return { config, rows, facts };
}

function describeModules(config: ModelConfig, { lora }: ResolvedRecipe): string {
  const depth = `${config.num_hidden_layers} layers`;
  if (lora === null) return `${depth}, all weights are trained`;
  const modules = resolveTargetModules({ n_layers: config.num_hidden_layers, architecture: config.model_type }, lora);
  return `${depth}, ${modules.length} adapted ${modules.length === 1 ? "module" : "modules"}, the first ${modules[0]}`;
}

function describeSteps(rows: number, { steps, checkpoints }: ResolvedRecipe): string {
  return `${rows.toLocaleString("en-US")} rows, ${steps.toLocaleString("en-US")} steps, checkpoints ${showValue(checkpoints)}`;
}

/** Without a model or data, what depends on them is resolved for a stand-in and shown as written. */
function resolve(recipes: Recipe[], { config, rows }: Target): ResolvedRecipe {
  return resolveRecipe(recipes, { n_layers: config?.num_hidden_layers ?? 1, rows: rows ?? 1, cuda: false });
}

const NEEDS_MODEL: readonly string[] = ["layers_to_transform"];
const NEEDS_DATA: readonly string[] = ["warmup_steps", "save_steps", "save_at_steps"];

function shownValue(
  name: keyof Recipe,
  { file, own, resolved, target }: { file: RecipeFile; own: Recipe; resolved: ResolvedRecipe; target: Target },
): ShownValue {
  const written = mergeRecipes([file, own])[name];
  const found: Record<string, unknown> = { ...resolved.lora, ...resolved.rendering, ...resolved.training };
  const open =
    name === "dtype" ||
    !(name in found) ||
    (NEEDS_MODEL.includes(name) && target.config === null) ||
    (NEEDS_DATA.includes(name) && target.rows === null);
  const value = open ? written : found[name];
  const same = JSON.stringify(value) === JSON.stringify(written);
  return { name, value, ...(same ? {} : { written }), source: sourceOf(name, file, own) };
}

function sourceOf(name: keyof Recipe, file: RecipeFile, own: Recipe): string {
  if (own[name] !== undefined) return "--set";
  if (file[name] === undefined) return defaultSource(name);
  return file.sources?.[name] ?? "the recipe, which names no source";
}

/** The dimensions of a model; its weights need not be there. */
function readConfig(dir: string): ModelConfig {
  const file = join(dir, "config.json");
  const { config, problems } = existsSync(file)
    ? parseModelConfig(JSON.parse(readFileSync(file, "utf8")))
    : { config: null, problems: ["config.json is missing"] };
  if (config !== null) return config;
  throw new DriverError("MODEL_INVALID", `Cannot use the model ${dir}: ${problems.join("; ")}`, {
    hint: "Use the folder of a dense Qwen2, Qwen2.5 or Qwen3 model, as save_pretrained writes it.",
    facts: { dir, problems },
  });
}
