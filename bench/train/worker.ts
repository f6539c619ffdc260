import { type ChildProcessByStdio, spawn } from "node:child_process";
import { once } from "node:events";
import { delimiter } from "node:path";
import { createInterface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { bridgeCommand } from "../../src/bridge/environment.ts";
import type { Job } from "./scenarios.ts";

const PYTHON_DIR = fileURLToPath(new URL("python", import.meta.url));
/** What is kept of a worker's stderr for an error. */
const TAIL_LINES = 20;

const Ready = z.object({ type: z.literal("ready"), prepared: z.record(z.string(), z.unknown()) });
const Step = z.strictObject({
  type: z.literal("step"),
  loss: z.number(),
  cpu_seconds: z.number().positive(),
  wall_seconds: z.number().positive(),
});
const Done = z.strictObject({
  type: z.literal("done"),
  peak_rss_bytes: z.int().positive(),
  versions: z.record(z.string(), z.string()),
  rows: z.record(z.string(), z.number()),
  cache: z.record(z.string(), z.number()).nullish(),
});

export type StepReport = z.output<typeof Step>;
export type DoneReport = z.output<typeof Done>;

/** A process that trains in one way, one optimizer step whenever it is told to. */
export class Worker {
  readonly name: string;
  readonly steps: StepReport[] = [];
  done: DoneReport | undefined;
  prepared: Record<string, unknown> = {};
  readonly #child: ChildProcessByStdio<Writable, Readable, Readable>;
  readonly #lines: AsyncIterator<string>;
  readonly #tail: string[] = [];

  private constructor(name: string, python: string) {
    this.name = name;
    this.#child = spawn(python, ["-m", "worker"], {
      stdio: ["pipe", "pipe", "pipe"],
      env: { ...process.env, ...workerEnv(python) },
    });
    this.#child.stdin.on("error", () => {}); // it died: the missing answer says so
    this.#lines = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]();
    createInterface({ input: this.#child.stderr }).on("line", (line) => {
      this.#tail.push(line);
      if (this.#tail.length > TAIL_LINES) this.#tail.shift();
    });
  }

  /** Starts a worker; it has built its model and waits for its first turn when this resolves. */
  static async start(name: string, python: string, job: Job): Promise<Worker> {
    const worker = new Worker(name, python);
    worker.prepared = (await worker.#ask(JSON.stringify(job), Ready)).prepared;
    return worker;
  }

  async step(): Promise<StepReport> {
    const report = await this.#ask("step", Step);
    this.steps.push(report);
    return report;
  }

  /** Lets the worker write its adapter and end. */
  async finish(adapter_file: string): Promise<DoneReport> {
    this.done = await this.#ask(adapter_file, Done);
    return this.done;
  }

  /** Ends the process if it has not ended by itself. */
  async close(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const closed = once(this.#child, "close");
    if (this.done === undefined) this.#child.kill("SIGKILL");
    await closed;
  }

  async #ask<T>(line: string, schema: z.ZodType<T>): Promise<T> {
    this.#child.stdin.write(`${line}\n`);
    const answer = await this.#lines.next();
    if (answer.done !== true) return schema.parse(JSON.parse(answer.value));
    throw new Error(`the worker ${this.name} ended without an answer:\n${this.#tail.join("\n")}`);
  }
}

/** The bridge's environment with the benchmark's modules on the path, one thread. */
export function workerEnv(python: string): Record<string, string> {
  const { env } = bridgeCommand(python);
  const path = `${env.PYTHONPATH}${delimiter}${PYTHON_DIR}`;
  return { ...env, PYTHONPATH: path, OMP_NUM_THREADS: "1", MKL_NUM_THREADS: "1" };
}
