import type { TrainingRun } from "../../pipeline/handles.ts";
import type { TrainJob } from "../../protocol/wire.ts";
import { countSteps, trainRows } from "../../records/recipe.ts";
import { splitLayer } from "./plan.ts";

/** Whether the output of the frozen layers is kept, and how much of it. */
export interface CacheWish {
  /** `auto`: where a row will be seen twice. */
  mode: "auto" | "on" | "off";
  /** Of all processes together. */
  max_bytes: number;
  dir: string;
}

/** Runs that one process does one after another. */
export interface PlannedCohort {
  runs: readonly TrainingRun[];
  prefix_cache: TrainJob["prefix_cache"];
}

/**
 * Sorts runs into processes: those of one base, dtype and cache mode together, a full fine-tune alone, and as many
 * processes as may run side by side. Runs that read the same data stay together, since they share its cached prefix.
 */
export function formCohorts(
  runs: readonly TrainingRun[],
  options: { jobs: number; cache: CacheWish },
): PlannedCohort[] {
  const { dir } = options.cache;
  const is_cached = (run: TrainingRun) => cached(run, runs, options.cache);
  const groups = groupBy(runs, (run) => groupKey(run, is_cached(run)));
  const cohorts = [...groups.values()].flatMap((group) => share(group, options.jobs));
  const filling = cohorts.filter(([first]) => first !== undefined && is_cached(first)).length;
  const max_bytes = Math.floor(options.cache.max_bytes / Math.max(1, Math.min(options.jobs, filling)));
  return cohorts.map((members) => {
    const [first] = members as [TrainingRun];
    return { runs: members, prefix_cache: { enabled: is_cached(first), max_bytes, dir } };
  });
}

function groupKey({ planned, staged }: TrainingRun, is_cached: boolean): string {
  const { lora, training } = planned.config;
  const alone = lora === null ? planned.id : "";
  return JSON.stringify([staged.sha256, training.dtype, training.load_in_4bit, is_cached, alone]);
}

/**
 * True when the hidden states that enter the lowest trained layer will be needed again: in this run or in another. How
 * many processes there are is not asked: a result must not depend on it, and filling costs no more than not filling.
 */
function cached(run: TrainingRun, all: readonly TrainingRun[], { mode }: CacheWish): boolean {
  if (splitLayer(run.staged, run.planned.config.lora) === 0) return false;
  if (mode !== "auto") return mode === "on";
  return passes(run) > 1 || all.filter((other) => prefixKey(other) === prefixKey(run)).length > 1;
}

/** Times that a row of the run is seen. */
function passes({ planned, data }: TrainingRun): number {
  const { training, steps } = planned.config;
  const one = { ...training, max_steps: -1, num_train_epochs: 1 };
  return steps / Math.max(1, countSteps(one, trainRows(training.test_size, data.rows.length)));
}

function prefixKey({ planned, staged, data }: TrainingRun): string {
  const { lora, rendering, training, chat_template_kwargs } = planned.config;
  return JSON.stringify([
    ...[staged.sha256, data.sha256, splitLayer(staged, lora), training.dtype, training.load_in_4bit],
    ...[training.max_length, rendering, chat_template_kwargs],
  ]);
}

/** Cuts a list into at most `n` parts of nearly one size, neighbours together, runs of one data set being neighbours. */
function share(group: readonly TrainingRun[], n: number): TrainingRun[][] {
  const parts = Math.max(1, Math.min(n, group.length));
  const sorted = [...groupBy(group, prefixKey).values()].flat();
  return Array.from({ length: parts }, (_, part) =>
    sorted.slice(Math.floor((part * sorted.length) / parts), Math.floor(((part + 1) * sorted.length) / parts)),
  );
}

function groupBy<T>(items: readonly T[], keyOf: (item: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const item of items) groups.set(keyOf(item), [...(groups.get(keyOf(item)) ?? []), item]);
  return groups;
}
