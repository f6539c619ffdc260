import { z } from "zod";
import { DriverError, type ErrorCode } from "../errors.ts";
import { ChildEvent, type Failure, type Hello, Job, type ResultOf, SCHEMA_SHA256 } from "../protocol/wire.ts";
import { Child, type ChildExit, type ChildOptions } from "./child.ts";
import { readLines } from "./lines.ts";

export interface JobOptions extends ChildOptions {
  /** Aborting asks the child to stop: it may save what it has and gets `grace_ms` for that. */
  signal?: AbortSignal;
  /** Aborting kills the child at once: a second Ctrl-C. */
  kill_signal?: AbortSignal;
  /** Called with every event, one after the other; a promise is awaited before the next event is read. */
  onEvent?: (event: ChildEvent) => void | Promise<void>;
  /** Milliseconds between asking the child to stop and killing its process group. */
  grace_ms?: number;
}

export interface JobOutcome<T extends Job["type"]> {
  result: ResultOf[T];
  /** Who did the work: versions and device, for the manifest. */
  hello: Hello;
}

const DEFAULT_GRACE_MS = 10_000;

const RESULT_TYPES: { [T in Job["type"]]: ResultOf[T]["type"] } = {
  train: "train_result",
  merge: "merge_result",
  score: "score_result",
  logprobs: "logprobs_result",
  sample: "sample_result",
};
type Terminal = ResultOf[Job["type"]] | Failure;

const FAILURE_CODES: Record<Exclude<Failure["code"], "INTERNAL">, ErrorCode> = {
  BAD_JOB: "BRIDGE_PROTOCOL",
  BAD_DATA: "DATA_INVALID",
  BAD_MODEL: "MODEL_INVALID",
  NON_FINITE_LOSS: "TRAIN_FAILED",
  OUT_OF_MEMORY: "OUT_OF_MEMORY",
  DISK_FULL: "DISK_FULL",
  ENGINE: "ENGINE_FAILED",
  CANCELLED: "CANCELLED",
};

/**
 * Runs one job in one child process and resolves with its result. The child is gone when the promise settles, and so is
 * everything that it started.
 *
 * One process a job: exiting is the only release of GPU memory that can be relied on.
 *
 * @throws {DriverError} What the child's failure says; `BRIDGE_NOT_INSTALLED` when it cannot be started,
 *   `BRIDGE_MISMATCH` when it speaks another schema, `BRIDGE_PROTOCOL` when it breaks the order of events,
 *   `BRIDGE_CRASHED` when it ends without a terminal event, `CANCELLED` after `signal` or `kill_signal`.
 * @throws whatever `onEvent` throws, after killing the child.
 */
export async function runJob<T extends Job["type"]>(
  job: Job & { type: T },
  options: JobOptions,
): Promise<JobOutcome<T>> {
  const line = `${JSON.stringify(validateJob(job))}\n`;
  if (options.signal?.aborted || options.kill_signal?.aborted) throw new DriverError("CANCELLED", "Cancelled");
  const child = await Child.start({ log_name: job.type, ...options });
  const ask = () => child.askToStop(options.grace_ms ?? DEFAULT_GRACE_MS);
  const kill = () => child.kill();
  options.signal?.addEventListener("abort", ask, { once: true });
  options.kill_signal?.addEventListener("abort", kill, { once: true });
  try {
    child.stdin.write(line);
    const { hello, terminal } = await readEvents(job.type, child, options.onEvent, ask);
    const exit = await child.exited;
    if (terminal === undefined || hello === undefined) throw crash(exit, child, options);
    if (options.kill_signal?.aborted) throw new DriverError("CANCELLED", "Cancelled; the child process was killed");
    checkExit(terminal, exit);
    if (terminal.type === "failure") throw failure(terminal, job.type, child.stderr_path);
    return { result: terminal as ResultOf[T], hello };
  } finally {
    options.signal?.removeEventListener("abort", ask);
    options.kill_signal?.removeEventListener("abort", kill);
    await child.close();
  }
}

function validateJob(job: Job): Job {
  const parsed = Job.safeParse(job);
  if (parsed.success) return parsed.data;
  throw new DriverError("BRIDGE_PROTOCOL", `The ${job.type} job is malformed:\n${z.prettifyError(parsed.error)}`, {
    cause: parsed.error,
  });
}

async function readEvents(
  job_type: Job["type"],
  child: Child,
  onEvent: JobOptions["onEvent"],
  onTerminal: () => void,
): Promise<{ hello: Hello | undefined; terminal: Terminal | undefined }> {
  let hello: Hello | undefined;
  let terminal: Terminal | undefined;
  for await (const line of readLines(child.events)) {
    const event = parseEvent(line);
    checkOrder(event, hello, terminal);
    if (event.type === "hello") hello = event;
    else terminal = asTerminal(event, job_type);
    if (terminal !== undefined) onTerminal(); // it has said all; if it cannot even exit, it is killed
    child.handling = true;
    await onEvent?.(event);
    child.handling = false;
  }
  return { hello, terminal };
}

function parseEvent(line: string): ChildEvent {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (cause) {
    throw new DriverError("BRIDGE_PROTOCOL", "The event stream holds a line that is not JSON", {
      cause,
      facts: { line: line.slice(0, 200) },
    });
  }
  checkSchema(value);
  const parsed = ChildEvent.safeParse(value);
  if (parsed.success) return parsed.data;
  throw new DriverError("BRIDGE_PROTOCOL", `Malformed event:\n${z.prettifyError(parsed.error)}`, {
    cause: parsed.error,
    facts: { line: line.slice(0, 200) },
  });
}

/** Done before the event is parsed: a greeting of another schema may look different. */
function checkSchema(value: unknown): void {
  const hello = value as { type?: unknown; schema_sha256?: unknown } | null;
  if (hello?.type !== "hello" || hello.schema_sha256 === SCHEMA_SHA256) return;
  throw new DriverError("BRIDGE_MISMATCH", "The child process was generated from another wire schema", {
    hint: "Run `npm run gen:protocol`, then build again: driver and child must come from one checkout.",
    facts: { driver: SCHEMA_SHA256, child: hello.schema_sha256 },
  });
}

function checkOrder(event: ChildEvent, hello: Hello | undefined, terminal: Terminal | undefined): void {
  if (terminal !== undefined)
    throw new DriverError("BRIDGE_PROTOCOL", `Expected nothing after ${terminal.type}, got ${event.type}`);
  if ((hello === undefined) !== (event.type === "hello"))
    throw new DriverError("BRIDGE_PROTOCOL", `Expected ${hello ? "one" : "a"} hello first, got ${event.type}`);
}

/** @returns undefined for an event that does not end the job */
function asTerminal(event: ChildEvent, job_type: Job["type"]): Terminal | undefined {
  switch (event.type) {
    case "failure":
      return event;
    case "train_result":
    case "merge_result":
    case "score_result":
    case "logprobs_result":
    case "sample_result":
      if (event.type === RESULT_TYPES[job_type]) return event;
      throw new DriverError(
        "BRIDGE_PROTOCOL",
        `A ${job_type} job ends with ${RESULT_TYPES[job_type]}, got ${event.type}`,
      );
    default:
      return undefined;
  }
}

/** A result from a process that then fails is not trusted: something in it went wrong. */
function checkExit(terminal: Terminal, exit: ChildExit): void {
  const failed = terminal.type === "failure";
  if (failed ? exit.code !== 0 : exit.code === 0) return;
  const expected = `exit ${failed ? 1 : 0} after ${terminal.type}`;
  throw new DriverError("BRIDGE_PROTOCOL", `Expected ${expected}, got ${describe(exit)}`, {
    facts: { exit_code: exit.code, signal: exit.signal },
  });
}

function failure(event: Failure, job_type: Job["type"], log: string | undefined): DriverError {
  const internal = job_type === "train" ? "TRAIN_FAILED" : "PHASE_FAILED";
  const code = event.code === "INTERNAL" ? internal : FAILURE_CODES[event.code];
  const hint = event.hint ?? logHint(log);
  return new DriverError(code, event.message, {
    ...(hint === undefined ? {} : { hint }),
    facts: { failure_code: event.code, traceback: event.traceback, log },
  });
}

function crash(exit: ChildExit, child: Child, { command }: JobOptions): DriverError {
  const facts = {
    exit_code: exit.code,
    signal: exit.signal,
    stderr_tail: child.stderrTail(),
    log: child.stderr_path,
    command,
  };
  if (exit.asked)
    return new DriverError("CANCELLED", `Cancelled; the child process ended (${describe(exit)})`, { facts });
  const memory = "SIGKILL usually means that the kernel ran out of memory.";
  const hint = [exit.signal === "SIGKILL" ? memory : undefined, logHint(child.stderr_path)].filter(Boolean).join(" ");
  return new DriverError("BRIDGE_CRASHED", `The child process ended (${describe(exit)}) without a result`, {
    ...(hint === "" ? {} : { hint }),
    facts,
  });
}

function logHint(log: string | undefined): string | undefined {
  return log === undefined ? undefined : `Its last words are in ${log}.`;
}

function describe({ code, signal }: ChildExit): string {
  return signal ?? `exit ${code}`;
}
