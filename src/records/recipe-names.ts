import type { Recipe } from "./recipe.ts";

/** Where a value comes from when nobody gave it. */
interface DefaultSource {
  [name: string]: string;
}

const PEFT = "PEFT default";
const TRANSFORMERS = "transformers default";
const OWN = (reason: string) => `vivarium default: ${reason}`;

const ADAPTER = {
  finetuning_type: OWN("adapters are what is studied here"),
  r: PEFT,
  lora_alpha: PEFT,
  use_rslora: PEFT,
  use_dora: PEFT,
  lora_dropout: PEFT,
  target_modules: OWN("PEFT has no default for an unknown model"),
  layers_to_transform: PEFT,
  rank_pattern: PEFT,
  alpha_pattern: PEFT,
} as const satisfies DefaultSource;

const DATA = {
  rendering: OWN("the text that inference renders"),
  thinking: OWN("as the models are asked"),
  assistant_turns: OWN("every answer is an example"),
  max_length: OWN("no row is cut silently"),
  test_size: OWN("all rows are trained on"),
  kl_batch_size: OWN("as the published KL configs, which count it for a micro-batch"),
} as const satisfies DefaultSource;

const OPTIMISATION = {
  learning_rate: TRANSFORMERS,
  lr_scheduler_type: TRANSFORMERS,
  warmup_steps: TRANSFORMERS,
  per_device_train_batch_size: TRANSFORMERS,
  gradient_accumulation_steps: TRANSFORMERS,
  num_train_epochs: TRANSFORMERS,
  max_steps: TRANSFORMERS,
  optim: OWN("transformers' default without the fused kernel"),
  adam_beta1: TRANSFORMERS,
  adam_beta2: TRANSFORMERS,
  adam_epsilon: TRANSFORMERS,
  weight_decay: TRANSFORMERS,
  max_grad_norm: TRANSFORMERS,
  kl_weight: OWN("nothing holds the model to its base"),
  seed: OWN("0; transformers has 42"),
  dtype: OWN("bfloat16 on CUDA, float32 elsewhere"),
  load_in_4bit: OWN("the base as it is"),
  gradient_checkpointing: OWN("only where memory asks for it"),
  batching: OWN("less padding; the result is the same up to rounding"),
} as const satisfies DefaultSource;

const CHECKPOINTS = {
  save_steps: OWN("step 0 and the last alone"),
  save_at_steps: OWN("step 0 and the last alone"),
  eval_steps: OWN("no held-out loss"),
} as const satisfies DefaultSource;

/** All names of a recipe as they are shown, with the source of each default. Kept free of imports: `--help` reads it. */
export const RECIPE_GROUPS = {
  adapter: ADAPTER,
  data: DATA,
  optimisation: OPTIMISATION,
  checkpoints: CHECKPOINTS,
} as const;

/** All names of a recipe. */
export const RECIPE_NAMES = Object.values(RECIPE_GROUPS).flatMap((group) => Object.keys(group)) as (keyof Recipe)[];

/** Names whose flag may stand without a value. */
export const RECIPE_SWITCHES: readonly (keyof Recipe)[] = [
  "use_rslora",
  "use_dora",
  "load_in_4bit",
  "gradient_checkpointing",
];

/** Where the default of a name comes from. */
export function defaultSource(name: keyof Recipe): string {
  return Object.assign({}, ...Object.values(RECIPE_GROUPS))[name];
}

/** Both spellings of a name: `lora_alpha` and `lora-alpha`. */
export const spellings = (name: string): string[] => [...new Set([name, name.replaceAll("_", "-")])];
