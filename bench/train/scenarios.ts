import type { Shape, Size } from "./sizes.ts";

/** Rows of a micro-batch and micro-batches of a step. Source: the published recipes of model organisms, 2 x 8. */
export const BATCH = { per_device_train_batch_size: 2, gradient_accumulation_steps: 8 };
/** The published recipes train one epoch; three show what the cache is worth to runs that go on or repeat. */
const EPOCHS = 3;
/** Without a layer below the adapter there is nothing to cache. */
const EPOCHS_ALL_LAYERS = 2;

/** As `Job` in python/job.py. */
export interface Job {
  side: "trl" | "vivarium";
  shape: Shape;
  rank: number;
  target_modules: string[] | string;
  layers_to_transform: number[] | null;
  dtype: "float32" | "bfloat16";
  n_rows: number;
  steps: number;
  per_device_train_batch_size: number;
  gradient_accumulation_steps: number;
  gradient_checkpointing: boolean;
  scores_all: boolean;
  batching: "in_order" | "by_length" | "packed";
  prefix_cache_dir: string | null;
}

/** Ways to train that take turns. The first two are TRL's. */
export const TRL_DEFAULT = "trl_default";
export const TRL_NO_GC = "trl_no_gc";
export const FIRST_PASS = "first_pass";
export const BY_LENGTH = "first_pass_by_length";
export const CACHED = "cached";

export interface Scenario {
  name: ScenarioName;
  /** Whether both sides must agree: not where they compute in other precisions. */
  is_exact: boolean;
  jobs: Record<string, Job>;
}

export const SCENARIO_NAMES = ["rank1", "rank32", "bf16"] as const;
export type ScenarioName = (typeof SCENARIO_NAMES)[number];

export interface Wish {
  size: Size;
  steps_per_epoch: number;
  /** TRL's head scores all positions, as it does on a CPU. */
  scores_all: boolean;
  /** Where a prefix cache may write. */
  cache_dir: string;
}

export function makeScenario(name: ScenarioName, wish: Wish): Scenario {
  const middle = wish.size.shape.num_hidden_layers / 2;
  const rank1 = { rank: 1, target_modules: ["down_proj"], layers_to_transform: [middle] };
  const rank32 = { rank: 32, target_modules: "all-linear", layers_to_transform: null };
  if (name === "rank1")
    return {
      name,
      is_exact: true,
      jobs: { ...trl(rank1, wish), ...uncached(rank1, wish), ...cached(rank1, wish) },
    };
  if (name === "rank32")
    return {
      name,
      is_exact: true,
      jobs: { ...trl(rank32, wish), ...uncached(rank32, wish) },
    };
  const bf16 = { ...rank1, dtype: "bfloat16" as const };
  return {
    name,
    is_exact: false,
    jobs: { ...trl(bf16, wish), ...uncached(bf16, wish), ...cached(bf16, wish) },
  };
}

type Part = Pick<Job, "rank" | "target_modules" | "layers_to_transform"> & Partial<Job>;

function trl(part: Part, wish: Wish): Record<string, Job> {
  return {
    [TRL_DEFAULT]: job({ ...part, side: "trl", gradient_checkpointing: true }, wish),
    [TRL_NO_GC]: job({ ...part, side: "trl" }, wish),
  };
}

function uncached(part: Part, wish: Wish): Record<string, Job> {
  return {
    [FIRST_PASS]: job(part, wish),
    [BY_LENGTH]: job({ ...part, batching: "by_length" }, wish),
  };
}

function cached(part: Part, wish: Wish): Record<string, Job> {
  const prefix_cache_dir = `${wish.cache_dir}/${part.dtype ?? "float32"}`;
  return { [CACHED]: job({ ...part, batching: "by_length", prefix_cache_dir }, wish) };
}

function job(part: Part, { size, steps_per_epoch, scores_all }: Wish): Job {
  return {
    side: "vivarium",
    shape: size.shape,
    dtype: "float32",
    n_rows: steps_per_epoch * BATCH.per_device_train_batch_size * BATCH.gradient_accumulation_steps,
    steps: steps_per_epoch * (part.layers_to_transform === null ? EPOCHS_ALL_LAYERS : EPOCHS),
    ...BATCH,
    gradient_checkpointing: false,
    scores_all,
    batching: "in_order",
    prefix_cache_dir: null,
    ...part,
  };
}
