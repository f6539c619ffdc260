import { cpus, totalmem } from "node:os";
import type { Equality, Measured } from "./measure.ts";
import { BATCH, BY_LENGTH, CACHED, FIRST_PASS, type ScenarioName, TRL_DEFAULT, TRL_NO_GC } from "./scenarios.ts";
import { headShare, QWEN25_14B, type Size } from "./sizes.ts";
import { median, type Ratio, ratio, sumEpochs } from "./statistics.ts";

/** Largest differences that count as equal: nats per target token, and relative to an adapter's matrix. */
export const MAX_LOSS_DIFF = 1e-4;
export const MAX_REL_WEIGHT_DIFF = 1e-3;

export interface Speedup {
  vs_default: Ratio;
  vs_no_gc: Ratio;
}

/** What a worker used. */
export interface Use {
  /** Of each step, over all threads. */
  cpu_seconds: number[];
  median_cpu_seconds: number;
  median_wall_seconds: number;
  peak_rss_bytes: number;
  losses: number[];
}

type Uses = { workers: Record<string, Use> };

export interface Summary {
  machine: { cpu: string; cores: number; memory_bytes: number; threads_per_worker: 1; device: "cpu" };
  versions: Record<string, string>;
  shape: Size["shape"] & { lm_head_share: number; lm_head_share_of_qwen25_14b: number };
  rows: Record<string, number>;
  trl_head: "targets" | "all positions";
  rank1?: Record<typeof FIRST_PASS | typeof BY_LENGTH | typeof CACHED | "epochs3", Speedup> & Uses;
  rank32?: Speedup & Record<"by_length", Speedup> & Uses;
  bf16?: Record<typeof FIRST_PASS | typeof BY_LENGTH | typeof CACHED | "epochs3", Speedup> & Uses;
  /** The largest difference of all float32 scenarios; the limits and each scenario's own. */
  equality: { [K in keyof Equality]: number | null } & {
    /** Null where no float32 scenario was run: bfloat16 has no limits. */
    passed: boolean | null;
    limits: Partial<Equality>;
    scenarios: Partial<Record<ScenarioName, Equality>>;
  };
}

export function summarise(measured: readonly Measured[], size: Size, steps_per_epoch: number, all: boolean): Summary {
  const first = Object.values(measured[0]?.done ?? {})[0];
  if (first === undefined) throw new RangeError("nothing was measured");
  const parts = Object.fromEntries(measured.map((one) => [one.scenario.name, summariseOne(one, steps_per_epoch)]));
  return {
    machine: {
      cpu: cpus()[0]?.model.trim() ?? "unknown",
      cores: cpus().length,
      memory_bytes: totalmem(),
      threads_per_worker: 1,
      device: "cpu",
    },
    versions: first.versions,
    shape: {
      ...size.shape,
      lm_head_share: headShare(size.shape),
      lm_head_share_of_qwen25_14b: headShare(QWEN25_14B),
    },
    rows: { ...first.rows, rows_per_step: BATCH.per_device_train_batch_size * BATCH.gradient_accumulation_steps },
    trl_head: all ? "all positions" : "targets",
    ...parts,
    equality: summariseEquality(measured),
  };
}

function summariseOne(one: Measured, steps_per_epoch: number): Summary["rank1"] | Summary["rank32"] {
  const workers = Object.fromEntries(Object.keys(one.steps).map((name) => [name, summariseUse(one, name)]));
  const seconds = (name: string) => workers[name]?.cpu_seconds ?? [];
  const against = (ours: string, part: (values: number[]) => number[] = (values) => values): Speedup => ({
    vs_default: ratio(part(seconds(TRL_DEFAULT)), part(seconds(ours))),
    vs_no_gc: ratio(part(seconds(TRL_NO_GC)), part(seconds(ours))),
  });
  if (one.scenario.name === "rank32") return { ...against(FIRST_PASS), by_length: against(BY_LENGTH), workers };
  return {
    first_pass: against(FIRST_PASS),
    first_pass_by_length: against(BY_LENGTH),
    cached: against(CACHED, (values) => values.slice(steps_per_epoch)),
    epochs3: against(CACHED, (values) => sumEpochs(values, steps_per_epoch)),
    workers,
  };
}

function summariseUse({ steps, done }: Measured, name: string): Use {
  const own = steps[name] ?? [];
  const cpu_seconds = own.map((step) => step.cpu_seconds);
  return {
    cpu_seconds,
    median_cpu_seconds: median(cpu_seconds),
    median_wall_seconds: median(own.map((step) => step.wall_seconds)),
    peak_rss_bytes: done[name]?.peak_rss_bytes ?? Number.NaN,
    losses: own.map((step) => step.loss),
  };
}

function summariseEquality(measured: readonly Measured[]): Summary["equality"] {
  const exact = measured.filter((one) => one.scenario.is_exact).map((one) => one.equality);
  const largest = (field: keyof Equality) =>
    exact.length === 0 ? null : Math.max(...exact.map((equality) => equality[field]));
  const max_loss_diff = largest("max_loss_diff");
  const max_rel_weight_diff = largest("max_rel_weight_diff");
  return {
    max_loss_diff,
    max_rel_weight_diff,
    max_rel_update_diff: largest("max_rel_update_diff"),
    passed:
      max_loss_diff === null || max_rel_weight_diff === null
        ? null
        : max_loss_diff <= MAX_LOSS_DIFF && max_rel_weight_diff <= MAX_REL_WEIGHT_DIFF,
    limits: { max_loss_diff: MAX_LOSS_DIFF, max_rel_weight_diff: MAX_REL_WEIGHT_DIFF },
    scenarios: Object.fromEntries(measured.map((one) => [one.scenario.name, one.equality])),
  };
}
