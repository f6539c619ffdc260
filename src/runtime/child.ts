import { z } from "zod";
import {
  type Failure,
  LogprobsJob,
  type LogprobsResult,
  SampleJob,
  type SampleResult,
  SCHEMA_SHA256,
} from "../protocol/wire.ts";
import { type Inbox, openChannel, openInbox, type Send } from "./channel.ts";
import { type Engine, openEngine } from "./engine.ts";
import { EngineFailure, toFailure } from "./failure.ts";
import { runLogprobs } from "./logprobs.ts";
import { runSample } from "./sample.ts";

/** Milliseconds a step may take to notice that it is cancelled before the process kills itself. */
const STEP_GRACE_MS = 100;

const EngineJob = z.discriminatedUnion("type", [SampleJob, LogprobsJob]);
type EngineJob = z.output<typeof EngineJob>;

const CANCELLED: Failure = {
  type: "failure",
  code: "CANCELLED",
  message: "Cancelled by the driver",
  hint: null,
  traceback: null,
};

/** The engine process: one job in, events out, then exit. llama.cpp may abort it; the driver lives on. */
async function main(): Promise<void> {
  const send = openChannel(process.env);
  const inbox = openInbox(process.stdin);
  const greeting = greet(send);
  inbox.cancelled.addEventListener("abort", () => setTimeout(() => dieNow(send, greeting), STEP_GRACE_MS));
  try {
    send(await work(inbox, send, greeting));
    process.exit(0);
  } catch (error) {
    greeting(null);
    send(inbox.cancelled.aborted ? CANCELLED : toFailure(error));
    process.exit(1);
  }
}

/** A running decode cannot be interrupted, and a plain exit would pull llama.cpp's memory away under it. */
function dieNow(send: Send, greeting: Greeting): void {
  try {
    greeting(null);
    send(CANCELLED);
  } finally {
    process.kill(process.pid, "SIGKILL");
  }
}

async function work(inbox: Inbox, send: Send, greeting: Greeting): Promise<SampleResult | LogprobsResult> {
  const job = parseJob(await inbox.job);
  const engine = await openEngine(job);
  greeting(engine);
  inbox.cancelled.throwIfAborted();
  return job.type === "sample"
    ? runSample(engine, job, send, inbox.cancelled)
    : runLogprobs(engine, job, inbox.cancelled);
}

/** @throws {EngineFailure} `BAD_JOB` when the line is no job that this process can do. */
function parseJob(line: string): EngineJob {
  try {
    return EngineJob.parse(JSON.parse(line));
  } catch (cause) {
    const reason = cause instanceof z.ZodError ? z.prettifyError(cause) : String(cause);
    throw new EngineFailure("BAD_JOB", `The job is malformed:\n${reason}`, { cause });
  }
}

type Greeting = (engine: Engine | null) => void;

/** Sends `hello` once, whatever happens: it is the first event also of a job that fails. */
function greet(send: Send): Greeting {
  let greeted = false;
  return (engine) => {
    if (greeted) return;
    greeted = true;
    send({
      type: "hello",
      schema_sha256: SCHEMA_SHA256,
      pid: process.pid,
      runtime: `Node ${process.versions.node}`,
      packages: engine?.packages ?? {},
      device: engine?.device ?? "none",
    });
  };
}

await main();
