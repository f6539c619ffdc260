import { parseDocument } from "yaml";
import { z } from "zod";
import { DriverError } from "../errors.ts";
import { nearest } from "../formats/nearest.ts";
import { FOREIGN_NAMES, foreignAdvice } from "../records/foreign-names.ts";
import { Recipe } from "../records/recipe.ts";
import { RECIPE_NAMES, spellings } from "../records/recipe-names.ts";
import { words } from "./io.ts";

type Name = keyof Recipe;

/** The short flags of `vivarium train` that decide recipe values; any other recipe name is a flag of that name. */
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

/** Steps, ranges and shares of the run as in `8,1-10,25%`. */
export function parseSteps(text: string): NonNullable<Recipe["save_at_steps"]> {
  const list = words(text);
  const wrong = list.filter((word) => !/^(\d+|\d+-\d+|\d+(\.\d+)?%)$/.test(word));
  if (list.length > 0 && wrong.length === 0) return list.map((word) => (/^\d+$/.test(word) ? Number(word) : word));
  const found = (wrong.length > 0 ? wrong : [text]).map((word) => JSON.stringify(word)).join(", ");
  throw new DriverError("USAGE", `--save-at: expected steps as in 8,1-10,25%, got ${found}`);
}

/** A value as YAML writes it. The parser throws on hostile nesting and aliases, which is a fault of the text too. */
function parseValue(flag: string, text: string): unknown {
  let fault: string | undefined;
  try {
    const document = parseDocument(text, { prettyErrors: false });
    fault = [...document.errors, ...document.warnings][0]?.message;
    if (fault === undefined) return document.toJS({ maxAliasCount: 0 });
  } catch (cause) {
    fault = (cause as Error).message;
  }
  throw new DriverError("USAGE", `${flag}: expected a YAML value, got ${JSON.stringify(text)}: ${fault}`);
}

/** Values that a shell writes more easily without brackets. */
const WITHOUT_BRACKETS: { readonly [K in Name]?: (text: string) => unknown } = {
  layers_to_transform: parseLayers,
  target_modules: parseModules,
  save_at_steps: parseSteps,
};

interface Given {
  name: Name;
  /** As the user wrote it, for messages. */
  flag: string;
  value: unknown;
}

function parseSetting(text: string): Given {
  const [name = "", ...rest] = text.split("=");
  const known: readonly string[] = RECIPE_NAMES;
  if (known.includes(name) && rest.length > 0) {
    const flag = `--set ${name}`;
    return { name: name as Name, flag, value: parseValue(flag, rest.join("=")) };
  }
  const advice = foreignAdvice(name);
  if (advice !== undefined) throw notHere(name, advice);
  const near = nearest(name, known);
  throw new DriverError(
    "USAGE",
    `--set: expected name=value with a name of PEFT or TrainingArguments, got ${JSON.stringify(text)}`,
    {
      hint: known.includes(name)
        ? `Write ${name}=VALUE.`
        : near === undefined
          ? `Names: ${known.join(", ")}`
          : `Did you mean ${near}?`,
    },
  );
}

const notHere = (name: string, advice: string): DriverError =>
  new DriverError("USAGE", `vivarium does not have ${name}`, { hint: advice });

/** The key under which commander keeps the value of a flag. */
const attribute = (spelling: string): string => spelling.replace(/-(\w)/g, (_, letter: string) => letter.toUpperCase());

/** What the short flags say, under the names of the recipe. */
function shortFlags(flags: RecipeFlags): Given[] {
  const parsed = <T>(text: string | undefined, parse: (text: string) => T) =>
    text === undefined ? undefined : parse(text);
  const short: [Name, string, unknown][] = [
    ["r", "--rank", flags.rank],
    ["lora_alpha", "--alpha", flags.alpha],
    ["use_rslora", "--rslora", flags.rslora],
    ["layers_to_transform", "--layers", parsed(flags.layers, parseLayers)],
    ["target_modules", "--modules", parsed(flags.modules, parseModules)],
    ["lora_dropout", "--dropout", flags.dropout],
    ["learning_rate", "--learning-rate", flags.learningRate],
    ["num_train_epochs", "--epochs", flags.epochs],
    ["max_steps", "--steps", flags.steps],
    ["per_device_train_batch_size", "--batch-size", flags.batchSize],
    ["gradient_accumulation_steps", "--accumulate", flags.accumulate],
    ["save_steps", "--save-steps", flags.saveSteps],
    ["save_at_steps", "--save-at", parsed(flags.saveAt, parseSteps)],
    ["seed", "--seed", flags.seed],
  ];
  return short.flatMap(([name, flag, value]) => (value === undefined ? [] : [{ name, flag, value }]));
}

/** Flags of recipe names as they are, whose values are YAML. Numbers were parsed already: they are short flags. */
function longFlags(flags: Readonly<Record<string, unknown>>): Given[] {
  return RECIPE_NAMES.flatMap((name) =>
    spellings(name).flatMap((spelling) => {
      const text = flags[attribute(spelling)];
      if (text === true) return [{ name, flag: `--${spelling}`, value: true }];
      if (typeof text !== "string") return [];
      const plain = text.trim().startsWith("[") ? undefined : WITHOUT_BRACKETS[name];
      return [{ name, flag: `--${spelling}`, value: plain?.(text) ?? parseValue(`--${spelling}`, text) }];
    }),
  );
}

function refuseForeign(flags: Readonly<Record<string, unknown>>): void {
  for (const name of FOREIGN_NAMES)
    for (const spelling of spellings(name))
      if (!(attribute(spelling) in SHORT_ATTRIBUTES) && flags[attribute(spelling)] !== undefined)
        throw notHere(name, foreignAdvice(name) ?? "");
}

/** Short flags that are also foreign names: as flags they mean something here. */
const SHORT_ATTRIBUTES = { rank: 0, alpha: 0, rslora: 0, layers: 0, modules: 0, dropout: 0, epochs: 0, batchSize: 0 };

/** Values by name; the same name twice with two values is a slip that nobody should have to find in a result. */
function collectOnce(given: readonly Given[]): Record<string, unknown> {
  const first = new Map<string, Given>();
  for (const entry of given) {
    const before = first.get(entry.name);
    if (before === undefined) first.set(entry.name, entry);
    else if (JSON.stringify(before.value) !== JSON.stringify(entry.value))
      throw new DriverError(
        "USAGE",
        `${entry.name} is given twice: ${before.flag} says ${JSON.stringify(before.value)}, ${entry.flag} says ${JSON.stringify(entry.value)}`,
        { hint: "Leave one of them out." },
      );
  }
  return Object.fromEntries([...first.values()].map(({ name, value }) => [name, value]));
}

/**
 * The recipe that the flags spell. Epochs without steps take away the steps that a weaker recipe has.
 *
 * @throws {DriverError} `USAGE` with everything that is wrong.
 */
export function recipeFromFlags(flags: RecipeFlags): Recipe {
  const all = flags as unknown as Record<string, unknown>;
  refuseForeign(all);
  const given = collectOnce([...shortFlags(flags), ...longFlags(all), ...flags.set.map(parseSetting)]);
  if (given.num_train_epochs !== undefined && given.max_steps === undefined) given.max_steps = -1;
  const parsed = Recipe.safeParse(given);
  if (parsed.success) return parsed.data;
  throw new DriverError("USAGE", `Bad recipe value:\n${z.prettifyError(parsed.error)}`, { facts: { given } });
}
