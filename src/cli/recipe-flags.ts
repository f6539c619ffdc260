import { parseDocument } from "yaml";
import { z } from "zod";
import { DriverError } from "../errors.ts";
import { nearest } from "../formats/nearest.ts";
import { Recipe } from "../records/recipe.ts";
import { words } from "./io.ts";

/** The flags of `vivarium train` that decide recipe values. */
export interface RecipeFlags {
  rank?: number;
  alpha?: number;
  rslora?: boolean;
  layers?: string;
  modules?: string;
  dropout?: number;
  learningRate?: number;
  epochs?: number;
  steps?: number;
  batchSize?: number;
  accumulate?: number;
  saveSteps?: number;
  saveAt?: string;
  seed?: number;
  set: string[];
}

/** `mid`, `all`, or a list of layers and ranges as in `3,5-7`, each layer once. */
export function parseLayers(text: string): Recipe["layers_to_transform"] {
  const which = text.trim();
  if (which === "mid" || which === "all") return which;
  const list = words(which);
  const layers = (list.length > 0 ? list : [""]).flatMap((word) => {
    const match = /^(\d+)(?:-(\d+))?$/.exec(word);
    const first = Number(match?.[1]);
    const last = Number(match?.[2] ?? match?.[1]);
    if (match === null || last < first || last - first > 10_000)
      throw new DriverError("USAGE", `--layers: expected mid, all, or as in 3,5-7, got ${JSON.stringify(text)}`);
    return Array.from({ length: last - first + 1 }, (_, i) => first + i);
  });
  return [...new Set(layers)];
}

/** A list of names, or one regular expression or `all-linear`, as PEFT tells them apart. */
export function parseModules(text: string): string | string[] {
  const list = words(text);
  if (list.length === 0)
    throw new DriverError("USAGE", `--modules: expected names or all-linear, got ${JSON.stringify(text)}`);
  if (text.trim() === "all-linear") return "all-linear";
  return list.every((word) => /^[\w.]+$/.test(word)) ? list : text;
}

/** Steps as in `8,12,16`. */
export function parseSteps(text: string): number[] {
  const list = words(text);
  const wrong = list.filter((word) => !/^\d+$/.test(word));
  if (list.length > 0 && wrong.length === 0) return list.map(Number);
  const found = (wrong.length > 0 ? wrong : [text]).map((word) => JSON.stringify(word)).join(", ");
  throw new DriverError("USAGE", `--save-at: expected steps as in 8,12,16, got ${found}`);
}

/**
 * Refuses checkpoints that a run would never reach, which would be missing at its end.
 *
 * @param steps optimizer steps of the run.
 * @throws {DriverError} `USAGE` naming them.
 */
export function checkSaveAt(asked: readonly number[], steps: number): void {
  const beyond = asked.filter((step) => step > steps);
  if (beyond.length === 0) return;
  throw new DriverError(
    "USAGE",
    `--save-at: expected steps of at most ${steps}, the last one, got ${beyond.join(", ")}`,
    {
      hint: "Train longer with --steps or --epochs, or leave them out.",
      facts: { beyond, steps },
    },
  );
}

/** A value as YAML writes it. The parser throws on hostile nesting and aliases, which is a fault of the text too. */
function parseValue(name: string, text: string): unknown {
  let fault: string | undefined;
  try {
    const document = parseDocument(text, { prettyErrors: false });
    fault = [...document.errors, ...document.warnings][0]?.message;
    if (fault === undefined) return document.toJS({ maxAliasCount: 0 });
  } catch (cause) {
    fault = (cause as Error).message;
  }
  throw new DriverError("USAGE", `--set ${name}: expected a YAML value, got ${JSON.stringify(text)}: ${fault}`);
}

function parseSetting(text: string): [string, unknown] {
  const [name = "", ...rest] = text.split("=");
  const known = Object.keys(Recipe.shape);
  if (!known.includes(name) || rest.length === 0) {
    const near = nearest(name, known);
    throw new DriverError(
      "USAGE",
      `--set: expected name=value with a name of PEFT or TrainingArguments, got ${JSON.stringify(text)}`,
      {
        hint: near === undefined ? `Names: ${known.join(", ")}` : `Did you mean ${near}?`,
      },
    );
  }
  return [name, parseValue(name, rest.join("="))];
}

/**
 * The recipe that the flags spell.
 *
 * @throws {DriverError} `USAGE` with everything that is wrong.
 */
export function recipeFromFlags(flags: RecipeFlags): Recipe {
  const wish = {
    r: flags.rank,
    lora_alpha: flags.alpha,
    use_rslora: flags.rslora,
    layers_to_transform: flags.layers === undefined ? undefined : parseLayers(flags.layers),
    target_modules: flags.modules === undefined ? undefined : parseModules(flags.modules),
    lora_dropout: flags.dropout,
    learning_rate: flags.learningRate,
    num_train_epochs: flags.epochs,
    max_steps: flags.steps ?? (flags.epochs === undefined ? undefined : -1),
    per_device_train_batch_size: flags.batchSize,
    gradient_accumulation_steps: flags.accumulate,
    save_steps: flags.saveSteps,
    save_at_steps: flags.saveAt === undefined ? undefined : parseSteps(flags.saveAt),
    seed: flags.seed,
    ...Object.fromEntries(flags.set.map(parseSetting)),
  };
  const given = Object.fromEntries(Object.entries(wish).filter(([, value]) => value !== undefined));
  const parsed = Recipe.safeParse(given);
  if (parsed.success) return parsed.data;
  throw new DriverError("USAGE", `Bad recipe value:\n${z.prettifyError(parsed.error)}`, { facts: { given } });
}
