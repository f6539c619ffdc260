/**
 * Every failure a user can meet, by code. The code is API: tested, documented and never reworded.
 *
 * Exit codes: 1 a phase failed, 2 the config or the data is wrong, 3 the machine lacks something, 4 a gate refused,
 * 70 our bug, 130 cancelled.
 */
export const ERROR_CODES = {
  USAGE: { exit: 2 },
  CONFIG_INVALID: { exit: 2 },
  DATA_INVALID: { exit: 2 },
  MODEL_INVALID: { exit: 2 },
  ADAPTER_INVALID: { exit: 2 },
  ADAPTER_UNSUPPORTED: { exit: 2 },
  FORMAT_INVALID: { exit: 2 },
  NOT_FOUND: { exit: 2 },
  MACHINE_LACKS: { exit: 3 },
  PYTHON_MISSING: { exit: 3 },
  BRIDGE_NOT_INSTALLED: { exit: 3 },
  BRIDGE_MISMATCH: { exit: 3 },
  DISK_FULL: { exit: 3 },
  NOT_WRITABLE: { exit: 3 },
  LOCKED: { exit: 3 },
  OUT_OF_MEMORY: { exit: 3 },
  PARITY_REFUSED: { exit: 4 },
  TOKENS_DIFFER: { exit: 4 },
  ARTIFACT_CHANGED: { exit: 4 },
  TRAIN_FAILED: { exit: 1 },
  ENGINE_FAILED: { exit: 1 },
  PHASE_FAILED: { exit: 1 },
  CANCELLED: { exit: 130 },
  BRIDGE_PROTOCOL: { exit: 70 },
  BRIDGE_CRASHED: { exit: 1 },
  INTERNAL: { exit: 70 },
} as const;
export type ErrorCode = keyof typeof ERROR_CODES;

/** One fault of a text that a person wrote, placed so that an editor can jump to it. Lines and columns start at 1. */
export interface Fault {
  file: string;
  line: number;
  column: number;
  expected: string;
  found: string;
}

export class DriverError extends Error {
  readonly code: ErrorCode;
  /** What the reader can do about it, as one imperative sentence. */
  readonly hint: string | undefined;
  /** Facts for the log and for tests: paths, ids, numbers with units in their names. */
  readonly facts: Readonly<Record<string, unknown>>;
  /** All faults found in user-written text, never only the first. */
  readonly faults: readonly Fault[];

  constructor(
    code: ErrorCode,
    message: string,
    options: { hint?: string; facts?: Record<string, unknown>; faults?: readonly Fault[]; cause?: unknown } = {},
  ) {
    super(message, { cause: options.cause });
    this.name = "DriverError";
    this.code = code;
    this.hint = options.hint;
    this.facts = options.facts ?? {};
    this.faults = options.faults ?? [];
  }
}
