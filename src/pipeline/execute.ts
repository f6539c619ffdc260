import { DriverError } from "../errors.ts";
import type { PhaseName, Progress, UnitContext, WorkUnit } from "./unit.ts";

export type PipelineEvent =
  | { type: "skipped"; unit: WorkUnit }
  | { type: "started"; unit: WorkUnit }
  | { type: "progress"; unit: WorkUnit; progress: Progress }
  | { type: "warning"; unit: WorkUnit; message: string }
  | { type: "finished"; unit: WorkUnit; seconds: number };

export interface ExecuteOptions {
  /** How many units may run at the same time. */
  jobs: number;
  signal: AbortSignal;
  onEvent: (event: PipelineEvent) => void;
}

export interface ExecuteResult {
  done: number;
  skipped: number;
  /** Wall seconds per phase, summed over its units. Phases that did no work are absent. */
  seconds: Partial<Record<PhaseName, number>>;
}

/**
 * Units in an order in which each comes after what it needs.
 *
 * @throws {DriverError} `INTERNAL` on a cycle or an unknown need: plans are made by us.
 */
export function orderUnits(units: readonly WorkUnit[]): WorkUnit[] {
  const byKey = new Map(units.map((unit) => [unit.key, unit]));
  if (byKey.size !== units.length) throw new DriverError("INTERNAL", "Two units of the plan have one key");
  const ordered: WorkUnit[] = [];
  const state = new Map<string, "open" | "placed">();
  const place = (key: string): void => {
    if (state.get(key) === "placed") return;
    const unit = byKey.get(key);
    if (!unit || state.get(key) === "open")
      throw new DriverError("INTERNAL", `The plan needs ${key} in a circle or from nowhere`);
    state.set(key, "open");
    unit.needs.forEach(place);
    state.set(key, "placed");
    ordered.push(unit);
  };
  for (const unit of units) place(unit.key);
  return ordered;
}

/**
 * Runs what is not done, at most `jobs` units at a time. The first failure cancels the rest; what is finished stays.
 *
 * @throws the first error of a unit; `CANCELLED` when the signal came.
 */
export async function executePlan(units: readonly WorkUnit[], options: ExecuteOptions): Promise<ExecuteResult> {
  const stop = new AbortController();
  const signal = AbortSignal.any([options.signal, stop.signal]);
  const result: ExecuteResult = { done: 0, skipped: 0, seconds: {} };
  const finished = new Map<string, Promise<void>>();
  const slots = new Slots(options.jobs);
  let failure: unknown;
  for (const unit of orderUnits(units)) {
    const needs = unit.needs.map((key) => finished.get(key) as Promise<void>);
    const work = Promise.all(needs)
      .then(() => slots.use(() => runUnit(unit, signal, options, result)))
      .catch((error: unknown) => {
        if (!isCancelled(error)) failure ??= error;
        stop.abort();
        throw error;
      });
    work.catch(() => {}); // reported below, once
    finished.set(unit.key, work);
  }
  await Promise.allSettled(finished.values());
  if (failure !== undefined) throw failure;
  if (options.signal.aborted)
    throw new DriverError("CANCELLED", "Cancelled; finished work is kept", {
      hint: "Run the same command again to go on.",
    });
  return result;
}

/** Units that were stopped because another failed, or because the user asked: not the reason themselves. */
function isCancelled(error: unknown): boolean {
  return error instanceof DriverError
    ? error.code === "CANCELLED"
    : error instanceof Error && error.name === "AbortError";
}

async function runUnit(
  unit: WorkUnit,
  signal: AbortSignal,
  options: ExecuteOptions,
  result: ExecuteResult,
): Promise<void> {
  if (signal.aborted) throw new DriverError("CANCELLED", "Cancelled before it began");
  if (await unit.isDone()) {
    result.skipped += 1;
    options.onEvent({ type: "skipped", unit });
    return;
  }
  options.onEvent({ type: "started", unit });
  const started = performance.now();
  const context: UnitContext = {
    signal,
    progress: (progress) => options.onEvent({ type: "progress", unit, progress }),
    warn: (message) => options.onEvent({ type: "warning", unit, message }),
  };
  await unit.run(context);
  const seconds = (performance.now() - started) / 1000;
  result.done += 1;
  result.seconds[unit.phase] = (result.seconds[unit.phase] ?? 0) + seconds;
  options.onEvent({ type: "finished", unit, seconds });
}

class Slots {
  #free: number;
  readonly #waiting: (() => void)[] = [];

  constructor(n: number) {
    this.#free = n;
  }

  async use<T>(work: () => Promise<T>): Promise<T> {
    if (this.#free > 0) this.#free -= 1;
    else await new Promise<void>((wake) => this.#waiting.push(wake));
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      if (next) next();
      else this.#free += 1;
    }
  }
}
