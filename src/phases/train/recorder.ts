import { existsSync } from "node:fs";
import { truncate } from "node:fs/promises";
import { join } from "node:path";
import { writeFileAtomic } from "../../artifacts/atomic.ts";
import { Journal } from "../../artifacts/journal.ts";
import { DriverError } from "../../errors.ts";
import type { PlannedRun } from "../../pipeline/handles.ts";
import type { UnitContext } from "../../pipeline/unit.ts";
import type { ChildEvent, RunResult, TrainStart, TrainStep } from "../../protocol/wire.ts";
import type { FileEntry } from "../../records/manifest.ts";
import { trainRows } from "../../records/recipe.ts";
import { HeldOutRow, MetricsRow } from "../../records/run.ts";
import { compareData, type ExpectedData } from "./data.ts";
import { describeStart, describeStep, type Losses } from "./words.ts";

export const METRICS_FILE = "metrics.jsonl";
export const HELD_OUT_FILE = "held-out.jsonl";

/** Keeps what the bridge reports of one run: metrics into their journals, checkpoints into the manifest's list. */
export class Recorder {
  readonly files: FileEntry[] = [];
  started: TrainStart | undefined;
  result: RunResult | undefined;
  readonly #run: PlannedRun;
  readonly #expected: readonly ExpectedData[];
  readonly #context: UnitContext;
  #metrics: Journal<MetricsRow> | undefined;
  #held_out: Journal<HeldOutRow> | undefined;
  readonly losses: Losses = { first: null, last: null, held_out: [] };

  constructor(run: PlannedRun, expected: readonly ExpectedData[], context: UnitContext) {
    this.#run = run;
    this.#expected = expected;
    this.#context = context;
  }

  async handle(event: ChildEvent): Promise<void> {
    switch (event.type) {
      case "data_ready":
        return this.#compare(event);
      case "train_start":
        return this.#start(event);
      case "train_step":
        return this.#step(event);
      case "held_out": {
        const { type: _type, ...row } = event;
        this.losses.held_out.push(row);
        await this.#held_out?.append([row]);
        return;
      }
      case "checkpoint":
        this.files.push(...event.files);
        return;
      case "run_result":
        this.result = event;
        return;
      case "log":
        return event.level === "warning" ? this.#context.warn(event.message) : this.#context.note(event.message);
      default:
        return;
    }
  }

  #compare(event: ChildEvent & { type: "data_ready" }): void {
    compareData(this.#expected, event);
    const { truncated_rows, truncated_tokens, rows, role } = event;
    if (truncated_rows > 0)
      this.#context.warn(
        `max_length cuts ${truncated_tokens} tokens off the ends of ${truncated_rows} of ${rows} ${role} rows`,
      );
  }

  async #start(event: TrainStart): Promise<void> {
    const { steps } = this.#run.config;
    if (event.max_steps !== steps)
      throw new DriverError("INTERNAL", `The bridge counts ${event.max_steps} steps: expected ${steps}`);
    const rows = trainRows(this.#run.config.training.test_size, this.#run.config.data.rows);
    if (event.train_rows !== rows)
      throw new DriverError("INTERNAL", `The bridge trains on ${event.train_rows} rows: expected ${rows}`);
    this.started = event;
    this.#context.note(describeStart(event));
    const metrics = join(this.#run.dir, METRICS_FILE);
    const held_out = join(this.#run.dir, HELD_OUT_FILE);
    await keepStepsUpTo(metrics, event.resumed_from_step);
    if (existsSync(held_out)) await truncate(held_out, 0); // few rows, and the bridge tells all of them again
    this.#metrics = await Journal.open(metrics, MetricsRow, (row) => String(row.step));
    if (event.held_out_rows > 0) this.#held_out = await Journal.open(held_out, HeldOutRow, (row) => String(row.step));
  }

  async #step(event: TrainStep): Promise<void> {
    const { type: _type, ...row } = event;
    await this.#metrics?.append([row]);
    const { steps } = this.#run.config;
    if (row.step === 1) this.losses.first = row.loss;
    this.losses.last = row.loss;
    if (row.step <= (this.started?.resumed_from_step ?? 0)) return; // told again: it was shown when it was made
    this.#context.progress({
      done: row.step,
      total: steps,
      of: "steps",
      note: describeStep(event, this.losses.held_out.at(-1)),
    });
  }

  async close(): Promise<void> {
    const journals = [this.#metrics, this.#held_out];
    this.#metrics = undefined;
    this.#held_out = undefined;
    for (const journal of journals) await journal?.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** Rows of steps that will be run again are dropped, so that no step stands twice and none is missing. */
async function keepStepsUpTo(path: string, step: number): Promise<void> {
  if (!existsSync(path)) return;
  if (step === 0) return truncate(path, 0);
  const journal = await Journal.open(path, MetricsRow, (row) => String(row.step));
  await journal.close();
  const kept = journal.rows.filter((row, index) => row.step === index + 1 && row.step <= step); // the bridge sends the rest again
  if (kept.length < journal.rows.length)
    await writeFileAtomic(path, kept.map((row) => `${JSON.stringify(row)}\n`).join(""));
}
