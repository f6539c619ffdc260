import { z } from "zod";
import { LoraShape, TrainingArguments } from "./lora.ts";

const { layers_to_transform, ...lora } = LoraShape.shape;

/**
 * A recipe: any of PEFT's `LoraConfig` names and transformers' `TrainingArguments` names, flat, each optional.
 * `layers_to_transform` also takes `mid` (one layer, index floor(n_layers / 2)) and `all`.
 */
export const Recipe = z
  .strictObject({
    ...lora,
    layers_to_transform: z.union([layers_to_transform, z.enum(["mid", "all"]), z.int().nonnegative()]),
    ...TrainingArguments.shape,
  })
  .partial();
export type Recipe = z.output<typeof Recipe>;

/** A recipe with every value decided: what is trained, and what `config.json` of a run holds. */
export interface ResolvedRecipe {
  lora: LoraShape;
  training: TrainingArguments;
}

/**
 * What a value is when neither the command, the experiment nor the recipe gives it.
 *
 * Sources: `peft.LoraConfig` (peft 0.21: r 8, lora_alpha 8, dropout 0, no rsLoRA); `transformers.TrainingArguments`
 * (transformers 5: learning_rate 5e-5, linear, warm-up 0, batch 8, 1 accumulation, 3 epochs, no weight decay,
 * max_grad_norm 1). Not theirs: `all-linear` (PEFT has no default target for an unknown model) and seed 0 (theirs: 42).
 */
export const RECIPE_DEFAULTS = {
  r: 8,
  lora_alpha: 8,
  use_rslora: false,
  lora_dropout: 0,
  target_modules: "all-linear",
  layers_to_transform: "all",
  rank_pattern: {},
  alpha_pattern: {},
  learning_rate: 5e-5,
  lr_scheduler_type: "linear",
  warmup_steps: 0,
  per_device_train_batch_size: 8,
  gradient_accumulation_steps: 1,
  num_train_epochs: 3,
  max_steps: -1,
  optim: "adamw_torch",
  weight_decay: 0,
  max_grad_norm: 1,
  seed: 0,
  dtype: "float32",
  max_length: null,
  save_steps: 0,
  save_at_steps: [],
} as const satisfies Recipe;

function resolveLayers(wish: Recipe["layers_to_transform"], n_layers: number): number[] | null {
  if (wish === undefined || wish === null || wish === "all") return null;
  if (wish === "mid") return [Math.floor(n_layers / 2)];
  return Array.isArray(wish) ? [...new Set(wish)].sort((a, b) => a - b) : [wish];
}

/** Decides every value: later recipes win over earlier ones, and all win over the defaults. */
export function resolveRecipe(recipes: readonly Recipe[], n_layers: number): ResolvedRecipe {
  const merged = Object.assign({}, RECIPE_DEFAULTS, ...recipes) as Required<Recipe>;
  const pick = (names: string[]) => Object.fromEntries(names.map((name) => [name, merged[name as keyof Recipe]]));
  return {
    lora: LoraShape.parse({
      ...pick(Object.keys(LoraShape.shape)),
      layers_to_transform: resolveLayers(merged.layers_to_transform, n_layers),
    }),
    training: TrainingArguments.parse({
      ...pick(Object.keys(TrainingArguments.shape)),
      save_at_steps: [...new Set(merged.save_at_steps)].sort((a, b) => a - b),
    }),
  };
}

/**
 * Optimizer steps of a training run over `rows` rows. The last batch of an epoch may be smaller; it is a step too.
 *
 * Source: `transformers.Trainer.set_initial_training_values` (ceil of epochs x steps per epoch; max_steps wins).
 */
export function countSteps(training: TrainingArguments, rows: number): number {
  if (training.max_steps >= 0) return training.max_steps;
  const perEpoch = Math.ceil(rows / (training.per_device_train_batch_size * training.gradient_accumulation_steps));
  return Math.ceil(training.num_train_epochs * perEpoch);
}

/** Steps that leave a checkpoint, ascending: 0, every `save_steps`, `save_at_steps`, and the last. */
export function checkpointSteps(training: TrainingArguments, last: number): number[] {
  const steps = new Set([0, last, ...training.save_at_steps.filter((step) => step <= last)]);
  if (training.save_steps > 0) for (let s = training.save_steps; s <= last; s += training.save_steps) steps.add(s);
  return [...steps].sort((a, b) => a - b);
}
