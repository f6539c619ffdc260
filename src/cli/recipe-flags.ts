import { parse } from "yaml";
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

/** `mid`, `all`, or a list of layers and ranges as in `3,5-7`. */
export function parseLayers(text: string): Recipe["layers_to_transform"] {
  if (text === "mid" || text === "all") return text;
  return words(text).flatMap((word) => {
    const match = /^(\d+)(?:-(\d+))?$/.exec(word);
    const first = Number(match?.[1]);
    const last = Number(match?.[2] ?? match?.[1]);
    if (match === null || last < first || last - first > 10_000)
      throw new DriverError("USAGE", `--layers: expected mid, all, or as in 3,5-7, got ${JSON.stringify(text)}`);
    return Array.from({ length: last - first + 1 }, (_, i) => first + i);
  });
}

/** A list of names, or one regular expression or `all-linear`, as PEFT tells them apart. */
export function parseModules(text: string): string | string[] {
  if (text === "all-linear") return text;
  const list = words(text);
  return list.every((word) => /^[\w.]+$/.test(word)) ? list : text;
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
  return [name, parse(rest.join("="))];
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
    save_at_steps: flags.saveAt === undefined ? undefined : words(flags.saveAt).map(Number),
    seed: flags.seed,
    ...Object.fromEntries(flags.set.map(parseSetting)),
  };
  const given = Object.fromEntries(Object.entries(wish).filter(([, value]) => value !== undefined));
  const parsed = Recipe.safeParse(given);
  if (parsed.success) return parsed.data;
  throw new DriverError("USAGE", `Bad recipe value:\n${z.prettifyError(parsed.error)}`, { facts: { given } });
}
