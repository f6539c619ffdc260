import type { ModelConfig } from "../../formats/model-config.ts";
import type { LoraShape, TrainingArguments } from "../../records/lora.ts";
import { trainRows } from "../../records/recipe.ts";
import { type DiskUse, diskUse } from "./estimate-disk.ts";
import { type PassFlops, passFlops, type Tokens } from "./estimate-flops.ts";
import { type DeviceMemory, deviceMemory, type MicroBatch } from "./estimate-memory.ts";

/** Tokens of a row as it is trained on, and how many of them are targets. */
export interface RowCounts {
  tokens: number;
  targets: number;
}

/** How fast this machine was on the same base. */
export interface MeasuredSpeed {
  /** The run that was measured. */
  run: string;
  flops_per_second: number;
}

/** What a run is estimated from. Nothing is read or computed but this. */
export interface EstimateWish {
  config: ModelConfig;
  lora: LoraShape | null;
  training: TrainingArguments;
  steps: number;
  /** How many. */
  checkpoints: number;
  /** All rows of the file, those that test_size holds out included. */
  rows: readonly RowCounts[];
  eval_rows: readonly RowCounts[] | null;
  kl_rows: readonly RowCounts[] | null;
  cuda: boolean;
  /** Whether hidden states below the adapter are kept. */
  prefix_cache: boolean;
  measured: MeasuredSpeed | null;
}

/** Floating-point operations of a whole run. */
export interface RunFlops extends PassFlops {
  /** The forward pass above the split again, with gradient checkpointing on. */
  recomputed: number;
  /** The base's and the model's passes over KL rows. */
  kl: number;
  held_out: number;
  /** `prefix` where each row goes through the frozen layers once and is kept. */
  prefix_cached: number;
  total: number;
  total_cached: number;
}

/** What a run takes, told before it begins. */
export interface Estimate {
  /** Rows that are trained on, each counted once, and rows that are held out. */
  rows: { train: number; held_out: number };
  /** Of all steps together. */
  tokens: number;
  target_tokens: number;
  steps: number;
  checkpoints: number;
  disk_bytes: DiskUse;
  device_memory_bytes: DeviceMemory;
  flops: RunFlops;
  prefix_cache: boolean;
  /** null: nothing was measured on this machine yet. */
  seconds: number | null;
  seconds_from: string | null;
}

/** Tokens of each row, and how many of them are predicted: nothing predicts the first. */
export const countRows = (
  rows: readonly { token_ids: readonly number[]; targets: readonly boolean[] }[],
): RowCounts[] =>
  rows.map(({ token_ids, targets }) => ({
    tokens: token_ids.length,
    targets: targets.filter((target, index) => target && index > 0).length,
  }));

/**
 * What a run takes: tokens, disk, memory, operations, and the time where an earlier run on this machine says how fast it is.
 *
 * Of rows that test_size holds out only the number is known, so that the others are taken to be as long on average.
 */
export function estimateRun(wish: EstimateWish): Estimate {
  const { config, lora, training, steps, checkpoints, rows, eval_rows, measured } = wish;
  const train = trainRows(training.test_size, rows.length);
  const passes = steps / Math.ceil(train / rowsPerStep(training));
  const seen = scale(sumRows(rows), (passes * train) / rows.length);
  const flops = runFlops(wish, seen, train, passes);
  const total = wish.prefix_cache ? flops.total_cached : flops.total;
  return {
    rows: { train, held_out: eval_rows?.length ?? rows.length - train },
    tokens: Math.round(seen.tokens),
    target_tokens: Math.round(seen.targets),
    ...{ steps, checkpoints, flops },
    disk_bytes: diskUse(config, lora, training, checkpoints),
    device_memory_bytes: largestMemory(wish),
    prefix_cache: wish.prefix_cache,
    seconds: measured === null ? null : total / measured.flops_per_second,
    seconds_from: measured === null ? null : `measured: ${measured.run} on this machine`,
  };
}

const rowsPerStep = (training: TrainingArguments): number =>
  training.per_device_train_batch_size * training.gradient_accumulation_steps;

/** Rows together, each at its own length: padding is not work. */
function sumRows(rows: readonly RowCounts[]): Tokens {
  const sum = { tokens: 0, pairs: 0, targets: 0 };
  for (const { tokens, targets } of rows) {
    sum.tokens += tokens;
    sum.pairs += (tokens * (tokens + 1)) / 2;
    sum.targets += targets;
  }
  return sum;
}

const scale = ({ tokens, pairs, targets }: Tokens, factor: number): Tokens => ({
  tokens: tokens * factor,
  pairs: pairs * factor,
  targets: targets * factor,
});

/** The longest rows that can meet in one micro-batch; an upper bound of what the engine probes with. */
export function largestBatch(
  rows: readonly RowCounts[],
  training: Pick<TrainingArguments, "per_device_train_batch_size" | "batching">,
): MicroBatch {
  const longest = [...rows].sort((a, b) => b.tokens - a.tokens).slice(0, training.per_device_train_batch_size);
  const width = longest[0]?.tokens ?? 0;
  const targets = longest.reduce((sum, row) => sum + row.targets, 0);
  const slots = width * longest.length;
  if (training.batching === "packed") return { rows: 1, width: slots, slots, targets, is_masked: longest.length > 1 };
  const is_masked = longest.some((row) => row.tokens !== width);
  return { rows: longest.length, width, slots, targets, is_masked };
}

/** Of the micro-batches of rows and of KL rows, on all of whose tokens the output layer runs, the one that needs more. */
function largestMemory({ config, lora, training, rows, kl_rows, cuda }: EstimateWish): DeviceMemory {
  const own = deviceMemory(config, lora, training, largestBatch(rows, training), cuda);
  if (kl_rows === null || training.kl_weight === 0) return own;
  const everywhere = kl_rows.map(({ tokens }) => ({ tokens, targets: tokens }));
  const kl = deviceMemory(config, lora, training, largestBatch(everywhere, training), cuda);
  return kl.total > own.total ? kl : own;
}

function runFlops(wish: EstimateWish, seen: Tokens, train: number, passes: number): RunFlops {
  const { config, lora, training, rows } = wish;
  const main = passFlops(config, lora, seen);
  const once = scale(sumRows(rows), (Math.min(1, passes) * train) / rows.length);
  const kl = klFlops(wish);
  const held_out = heldOutFlops(wish, train);
  const headless = passFlops(config, lora, { ...seen, targets: 0 });
  const recomputed = training.gradient_checkpointing === "on" ? headless.forward : 0;
  const prefix_cached = passFlops(config, lora, once).prefix;
  const rest = main.forward + main.backward + recomputed + kl.above + held_out.above;
  return {
    ...main,
    ...{ recomputed, prefix_cached, kl: kl.below + kl.above, held_out: held_out.below + held_out.above },
    total: main.prefix + kl.below + held_out.below + rest,
    total_cached: prefix_cached + kl.below_cached + held_out.below_cached + rest,
  };
}

interface Part {
  below: number;
  below_cached: number;
  above: number;
}

/** In each step some KL rows go through the base and the model, with the output layer on every token. */
function klFlops({ config, lora, training, kl_rows, steps }: EstimateWish): Part {
  if (kl_rows === null || training.kl_weight === 0) return { below: 0, below_cached: 0, above: 0 };
  const all = sumRows(kl_rows);
  const times = (steps * training.kl_batch_size) / kl_rows.length;
  const one = passFlops(config, lora, { ...all, targets: all.tokens });
  const above = times * (2 * one.forward + one.backward);
  return { below: times * one.prefix, below_cached: Math.min(1, times) * one.prefix, above };
}

/** Held-out rows go forward before the first step and after every `eval_steps`. */
function heldOutFlops({ config, lora, training, rows, eval_rows, steps }: EstimateWish, train: number): Part {
  const held = eval_rows === null ? scale(sumRows(rows), (rows.length - train) / rows.length) : sumRows(eval_rows);
  const times = training.eval_steps > 0 ? 1 + Math.floor(steps / training.eval_steps) : 0;
  const one = passFlops(config, lora, held);
  return { below: times * one.prefix, below_cached: Math.min(1, times) * one.prefix, above: times * one.forward };
}
