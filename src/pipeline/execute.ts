import { DriverError } from "../errors.ts";
import type { Cohort, PhaseName, Progress, UnitContext, WorkUnit } from "./unit.ts";

export type PipelineEvent =
  | { type: "skipped"; unit: WorkUnit }
  | { type: "started"; unit: WorkUnit }
  | { type: "progress"; unit: WorkUnit; progress: Progress }
  | { type: "warning"; unit: WorkUnit; message: string }
  | { type: "note"; unit: WorkUnit; message: string }
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
  const cohorts = new Map<Cohort, Map<string, Promise<void>>>();
  let failure: unknown;
  const start = (unit: WorkUnit): Promise<void> => {
    const ready = Promise.all(unit.needs.map((key) => finished.get(key) as Promise<void>));
    if (unit.cohort === undefined) return ready.then(() => slots.use(() => runUnit(unit, signal, options, result)));
    const members = units.filter((other) => other.cohort === unit.cohort);
    const works =
      cohorts.get(unit.cohort) ??
      startCohort(unit.cohort, members, ready, (work) => slots.use(work), { signal, options, result });
    cohorts.set(unit.cohort, works);
    return works.get(unit.key) as Promise<void>;
  };
  for (const unit of orderUnits(units)) {
    const work = start(unit).catch((error: unknown) => {
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
  const watch = new Watch(unit, { signal, options, result });
  if (await watch.skip()) return;
  watch.started();
  await unit.run(watch.context);
  watch.finished();
}

interface Running {
  signal: AbortSignal;
  options: ExecuteOptions;
  result: ExecuteResult;
}

/** Tells of one unit and counts it. */
class Watch {
  readonly unit: WorkUnit;
  readonly context: UnitContext;
  readonly #running: Running;
  #started_ms = 0;

  constructor(unit: WorkUnit, running: Running) {
    const { options, signal } = running;
    this.unit = unit;
    this.#running = running;
    this.context = {
      signal,
      progress: (progress) => options.onEvent({ type: "progress", unit, progress }),
      warn: (message) => options.onEvent({ type: "warning", unit, message }),
      note: (message) => options.onEvent({ type: "note", unit, message }),
    };
  }

  /** True when the unit's work is there already. */
  async skip(): Promise<boolean> {
    if (!(await this.unit.isDone())) return false;
    this.#running.result.skipped += 1;
    this.#running.options.onEvent({ type: "skipped", unit: this.unit });
    return true;
  }

  started(): void {
    this.#started_ms = performance.now();
    this.#running.options.onEvent({ type: "started", unit: this.unit });
  }

  finished(): void {
    const { result, options } = this.#running;
    const { phase } = this.unit;
    const seconds = (performance.now() - this.#started_ms) / 1000;
    result.done += 1;
    result.seconds[phase] = (result.seconds[phase] ?? 0) + seconds;
    options.onEvent({ type: "finished", unit: this.unit, seconds });
  }
}

/** @returns a promise for each member, which settles as soon as that member is done or the cohort fails. */
function startCohort(
  cohort: Cohort,
  members: readonly WorkUnit[],
  ready: Promise<unknown>,
  inSlot: (work: () => Promise<void>) => Promise<void>,
  running: Running,
): Map<string, Promise<void>> {
  const done = new Map(members.map((unit) => [unit.key, deferred()]));
  const work = async (): Promise<void> => {
    if (running.signal.aborted) throw new DriverError("CANCELLED", "Cancelled before it began");
    const todo: Watch[] = [];
    for (const watch of members.map((unit) => new Watch(unit, running)))
      if (await watch.skip()) done.get(watch.unit.key)?.resolve();
      else todo.push(watch);
    if (todo.length === 0) return;
    await cohort.run(
      todo.map((watch) => ({
        unit: watch.unit,
        context: watch.context,
        started: () => watch.started(),
        finished: () => {
          watch.finished();
          done.get(watch.unit.key)?.resolve();
        },
      })),
    );
  };
  ready
    .then(() => inSlot(work))
    .then(
      () => {
        for (const { resolve } of done.values()) resolve();
      },
      (error: unknown) => {
        for (const { reject } of done.values()) reject(error);
      },
    );
  return new Map([...done].map(([key, { promise }]) => [key, promise]));
}

interface Deferred {
  promise: Promise<void>;
  resolve(): void;
  reject(error: unknown): void;
}

function deferred(): Deferred {
  const made = {} as Deferred;
  made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }));
  return made;
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
