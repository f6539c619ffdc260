export const PHASES = ["stage", "train", "convert", "parity", "sample", "judge", "report"] as const;
export type PhaseName = (typeof PHASES)[number];

/** Progress of one unit; `total` is undefined while unknown. `of` is the word for what is counted, e.g. "responses". */
export interface Progress {
  done: number;
  total: number | undefined;
  of: string;
  note?: string;
}

/** What a unit may use while it runs. Everything that could differ between machines comes in through here. */
export interface UnitContext {
  readonly signal: AbortSignal;
  progress(progress: Progress): void;
  warn(message: string): void;
  /** Says what a reader of the log would want to know, once. */
  note(message: string): void;
}

/**
 * One idempotent piece of work: it writes only below its own folder, and running it again after a crash gives what an
 * undisturbed run gives. A phase is a maker of units; the pipeline knows nothing else about phases.
 */
export interface WorkUnit {
  /** Unique within a plan, e.g. `train organism`. */
  readonly key: string;
  readonly phase: PhaseName;
  /** Keys of the units whose files this one reads. */
  readonly needs: readonly string[];
  /** Folder or file that this unit makes. */
  readonly output: string;
  /** What it will do, in a few words with counts, for `plan`. */
  readonly summary: string;
  /** True when the work is there already and whole. Cheap: called for every unit of every plan. */
  isDone(): Promise<boolean>;
  run(context: UnitContext): Promise<void>;
  /** Set when one process can do this unit and others, one after another: then `run` is not called. */
  readonly cohort?: Cohort;
}

/** Units that are done one after another in one warm process. All need the same units. */
export interface Cohort {
  /** Does the members in this order. One that is finished says so at once, so that what needs it can begin. */
  run(members: readonly CohortMember[]): Promise<void>;
}

export interface CohortMember {
  readonly unit: WorkUnit;
  readonly context: UnitContext;
  started(): void;
  finished(): void;
}
