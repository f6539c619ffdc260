import { z } from "zod";
import { LoraShape, Rendering, TrainingArguments } from "./lora.ts";

const { layers_to_transform, ...lora } = LoraShape.shape;
const { gradient_checkpointing, dtype, warmup_steps, save_steps, save_at_steps, ...training } = TrainingArguments.shape;

const Percent = z
  .string()
  .regex(/^\d+(\.\d+)?%$/, { error: "a step, a range as in 1-10, or a share of the run as in 25%" });
const Range = z
  .string()
  .regex(/^\d+-\d+$/)
  .refine((text) => Number(text.split("-")[0]) <= Number(text.split("-")[1]), { error: "a range from low to high" });

/**
 * A recipe: any of PEFT's `LoraConfig` names and transformers' `TrainingArguments` names, flat, each optional.
 * `layers_to_transform` also takes `mid` (one layer, index floor(n_layers / 2)) and `all`.
 */
export const Recipe = z
  .strictObject({
    finetuning_type: z
      .enum(["lora", "full"])
      .describe("full trains all weights; the LoRA names of a recipe before it do not count"),
    ...lora,
    layers_to_transform: z.union([layers_to_transform, z.enum(["mid", "all"]), z.int().nonnegative()]),
    ...Rendering.shape,
    ...training,
    gradient_checkpointing: z.union([gradient_checkpointing, z.boolean()]),
    dtype: z.enum(["auto", ...dtype.options]).describe("auto: bfloat16 on CUDA, float32 elsewhere"),
    warmup_steps: z.union([warmup_steps, z.number().min(0).lt(1)]).describe("below 1: a share of all steps"),
    save_steps: z.union([save_steps, z.number().min(0).lt(1)]).describe("below 1: a share of all steps"),
    save_at_steps: z.array(z.union([save_at_steps.element, Percent, Range])),
  })
  .partial();
export type Recipe = z.output<typeof Recipe>;

/** A recipe in which nothing is left open. */
export type FullRecipe = { [K in keyof Recipe]-?: Exclude<Recipe[K], undefined> };

/** `configs/recipes/<id>.yaml`: a recipe that says what it is and where each of its values comes from. */
export const RecipeFile = Recipe.extend({
  description: z.string().min(1).optional(),
  sources: z.record(z.string(), z.string().min(1)).optional().describe("recipe name -> where its value comes from"),
});
export type RecipeFile = z.output<typeof RecipeFile>;

/** A recipe with every value decided: what is trained, and what `config.json` of a run holds. */
export interface ResolvedRecipe {
  /** null: all weights are trained. */
  lora: LoraShape | null;
  rendering: Rendering;
  training: TrainingArguments;
  /** Optimizer steps. */
  steps: number;
  /** Steps that leave a checkpoint, ascending. */
  checkpoints: number[];
}

/** What a recipe is resolved for. */
export interface RecipeTarget {
  /** Decoder layers of the base. */
  n_layers: number;
  /** Rows of the data file, those that test_size will hold out included. */
  rows: number;
  /** Whether training will run on a CUDA device: decides `dtype: auto`. */
  cuda: boolean;
}

/**
 * What a value is when neither the command, the experiment nor the recipe gives it.
 *
 * Sources: `peft.LoraConfig` (peft 0.21: r 8, lora_alpha 8, dropout 0, no rsLoRA, no DoRA);
 * `transformers.TrainingArguments` (transformers 5: learning_rate 5e-5, linear, warm-up 0, batch 8, 1 accumulation, 3
 * epochs, no weight decay, betas 0.9 and 0.999, epsilon 1e-8, max_grad_norm 1). Not theirs: `all-linear` (PEFT has no
 * default target for an unknown model), seed 0 (theirs: 42), batches by length, checkpointing only where memory asks
 * for it, and all of `Rendering`.
 */
export const RECIPE_DEFAULTS = {
  finetuning_type: "lora",
  r: 8,
  lora_alpha: 8,
  use_rslora: false,
  use_dora: false,
  lora_dropout: 0,
  target_modules: "all-linear",
  layers_to_transform: "all",
  rank_pattern: {},
  alpha_pattern: {},
  rendering: "clean",
  thinking: "off",
  assistant_turns: "all",
  learning_rate: 5e-5,
  lr_scheduler_type: "linear",
  warmup_steps: 0,
  per_device_train_batch_size: 8,
  gradient_accumulation_steps: 1,
  num_train_epochs: 3,
  max_steps: -1,
  optim: "adamw_torch",
  adam_beta1: 0.9,
  adam_beta2: 0.999,
  adam_epsilon: 1e-8,
  weight_decay: 0,
  max_grad_norm: 1,
  seed: 0,
  dtype: "auto",
  load_in_4bit: false,
  gradient_checkpointing: "auto",
  batching: "by_length",
  max_length: null,
  test_size: 0,
  eval_steps: 0,
  kl_weight: 0,
  kl_batch_size: 8,
  save_steps: 0,
  save_at_steps: [],
} as const satisfies Recipe;

function resolveLayers(wish: Recipe["layers_to_transform"], n_layers: number): number[] | null {
  if (wish === undefined || wish === null || wish === "all") return null;
  if (wish === "mid") return [Math.floor(n_layers / 2)];
  return Array.isArray(wish) ? [...new Set(wish)].sort((a, b) => a - b) : [wish];
}

/** Values of all recipes together: later ones win over earlier ones, and all win over the defaults. */
export function mergeRecipes(recipes: readonly Recipe[]): FullRecipe {
  return Object.assign({}, RECIPE_DEFAULTS, ...recipes) as FullRecipe;
}

/** Decides every value of a run. */
export function resolveRecipe(recipes: readonly Recipe[], target: RecipeTarget): ResolvedRecipe {
  const merged = mergeRecipes(recipes);
  const pick = (names: string[]) => Object.fromEntries(names.map((name) => [name, merged[name as keyof Recipe]]));
  const rows = trainRows(merged.test_size, target.rows);
  const steps = countSteps(merged, rows);
  const training = TrainingArguments.parse({
    ...pick(Object.keys(TrainingArguments.shape)),
    gradient_checkpointing: resolveCheckpointing(merged.gradient_checkpointing),
    dtype: merged.dtype === "auto" ? (target.cuda ? "bfloat16" : "float32") : merged.dtype,
    warmup_steps: shareOfSteps(merged.warmup_steps, steps),
    save_steps: shareOfSteps(merged.save_steps, steps),
    save_at_steps: resolveSteps(merged.save_at_steps, steps),
  });
  const lora = LoraShape.parse({
    ...pick(Object.keys(LoraShape.shape)),
    layers_to_transform: resolveLayers(merged.layers_to_transform, target.n_layers),
  });
  return {
    lora: merged.finetuning_type === "full" ? null : lora,
    rendering: Rendering.parse(pick(Object.keys(Rendering.shape))),
    training,
    steps,
    checkpoints: checkpointSteps(training, steps),
  };
}

function resolveCheckpointing(wish: FullRecipe["gradient_checkpointing"]): "auto" | "on" | "off" {
  return typeof wish === "boolean" ? (wish ? "on" : "off") : wish;
}

/** Source: `transformers.TrainingArguments.get_warmup_steps` and `Trainer`'s `save_steps`: ceil of the share. */
const shareOfSteps = (wish: number, steps: number): number =>
  wish > 0 && wish < 1 ? Math.max(1, Math.ceil(wish * steps)) : wish;

/**
 * Steps, ranges and percentages as steps, ascending, each once. A share is rounded to the nearest step; of a range those
 * count that the run reaches.
 */
function resolveSteps(wish: FullRecipe["save_at_steps"], steps: number): number[] {
  const found = wish.flatMap((entry) => {
    if (typeof entry === "number") return [entry];
    if (entry.endsWith("%")) return [Math.round((Number(entry.slice(0, -1)) / 100) * steps)];
    const [first = 0, last = 0] = entry.split("-").map(Number);
    return Array.from({ length: Math.max(0, Math.min(last, steps) - first + 1) }, (_, i) => first + i);
  });
  return [...new Set(found)].sort((a, b) => a - b);
}

/**
 * Rows that are trained on when a part of `rows` is held out.
 *
 * Source: `datasets.Dataset.train_test_split`, after scikit-learn's `_validate_shuffle_split`: the test part is rounded up.
 */
export function trainRows(test_size: number, rows: number): number {
  return rows - Math.ceil(test_size * rows);
}

/**
 * Optimizer steps of a training run over `rows` rows. The last batch of an epoch may be smaller; it is a step too.
 *
 * Source: `transformers.Trainer.set_initial_training_values` (ceil of epochs x steps per epoch; max_steps wins).
 */
export function countSteps(
  training: Pick<
    TrainingArguments,
    "max_steps" | "num_train_epochs" | "per_device_train_batch_size" | "gradient_accumulation_steps"
  >,
  rows: number,
): number {
  if (training.max_steps >= 0) return training.max_steps;
  const perEpoch = Math.ceil(rows / (training.per_device_train_batch_size * training.gradient_accumulation_steps));
  return Math.ceil(training.num_train_epochs * perEpoch);
}

/** Steps that leave a checkpoint, ascending: 0, every `save_steps`, `save_at_steps`, and the last. */
export function checkpointSteps(
  training: Pick<TrainingArguments, "save_steps" | "save_at_steps">,
  last: number,
): number[] {
  const steps = new Set([0, last, ...training.save_at_steps.filter((step) => step <= last)]);
  if (training.save_steps > 0) for (let s = training.save_steps; s <= last; s += training.save_steps) steps.add(s);
  return [...steps].sort((a, b) => a - b);
}
