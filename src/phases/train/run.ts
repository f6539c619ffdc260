import { existsSync } from "node:fs";
import { truncate } from "node:fs/promises";
import { join } from "node:path";
import { writeFileAtomic, writeJsonAtomic } from "../../artifacts/atomic.ts";
import { Journal } from "../../artifacts/journal.ts";
import { lockFolder } from "../../artifacts/lock.ts";
import { fileEntries, outputsExist, readManifest, writeManifest } from "../../artifacts/manifest.ts";
import { bridgeCommand } from "../../bridge/environment.ts";
import { runJob } from "../../bridge/session.ts";
import { DriverError } from "../../errors.ts";
import { digests } from "../../formats/chat.ts";
import type { LoadedDataset, PlannedRun, StagedModel } from "../../pipeline/handles.ts";
import type { UnitContext, WorkUnit } from "../../pipeline/unit.ts";
import type { Workspace } from "../../pipeline/workspace.ts";
import type { ChildEvent, DataReady, Hello, TrainResult } from "../../protocol/wire.ts";
import { describeTargets } from "../../records/lora.ts";
import type { FileEntry } from "../../records/manifest.ts";
import { MetricsRow } from "../../records/run.ts";

export const checkpointDir = (run: PlannedRun, step: number): string => join(run.dir, `checkpoint-${step}`);

/** The unit that trains one adapter through the bridge. It goes on from `last/` after a crash. */
export function trainUnit(
  run: PlannedRun,
  staged: StagedModel,
  dataset: LoadedDataset,
  workspace: Workspace,
): WorkUnit {
  const { lora, training, steps, checkpoints } = run.config;
  return {
    key: `train ${run.label}`,
    phase: "train",
    needs: [`stage ${staged.id}`],
    output: run.dir,
    summary: `rank ${lora.r} on ${describeTargets(lora)}, ${dataset.id} (${dataset.rows.length} rows), ${steps} steps, seed ${training.seed}, ${checkpoints.length} checkpoints`,
    isDone: async () => {
      const manifest = await readManifest(join(run.dir, "manifest.json"));
      return manifest !== undefined && (await outputsExist(run.dir, manifest));
    },
    run: (context) => train(run, staged, dataset, workspace, context),
  };
}

async function train(
  run: PlannedRun,
  staged: StagedModel,
  dataset: LoadedDataset,
  workspace: Workspace,
  context: UnitContext,
): Promise<void> {
  const started = performance.now();
  const expected = digests(
    dataset.rows.map((row) => staged.chat.trainingRow(row.messages, run.config.chat_template_kwargs)),
  );
  await using _lock = await lockFolder(run.dir);
  await writeJsonAtomic(join(run.dir, "config.json"), run.config);
  const python = await workspace.python();
  await using recorder = new Recorder(run, expected, context);
  const { result, hello } = await runJob(
    {
      type: "train",
      base_model_dir: staged.dir,
      dataset_file: dataset.file,
      run_dir: run.dir,
      chat_template_kwargs: run.config.chat_template_kwargs,
      lora: run.config.lora,
      training: run.config.training,
      num_threads: workspace.num_threads,
    },
    {
      ...bridgeCommand(python),
      signal: context.signal,
      log_dir: join(run.dir, "logs"),
      log_name: "train",
      onEvent: (event) => recorder.handle(event),
    },
  );
  await recorder.close();
  checkCheckpoints(run, recorder.files);
  await writeManifest(
    join(run.dir, "manifest.json"),
    await runManifest({
      run,
      staged,
      dataset,
      workspace,
      result,
      hello,
      data: expected,
      files: recorder.files,
      started,
    }),
  );
}

/** Keeps what the bridge reports: metrics into their journal, checkpoints into the list that the manifest holds. */
class Recorder {
  readonly files: FileEntry[] = [];
  readonly #run: PlannedRun;
  readonly #expected: Omit<DataReady, "type">;
  readonly #context: UnitContext;
  #journal: Journal<MetricsRow> | undefined;

  constructor(run: PlannedRun, expected: Omit<DataReady, "type">, context: UnitContext) {
    this.#run = run;
    this.#expected = expected;
    this.#context = context;
  }

  async handle(event: ChildEvent): Promise<void> {
    switch (event.type) {
      case "data_ready":
        return compareTokens(this.#expected, event);
      case "train_start":
        return this.#start(event.resumed_from_step, event.max_steps);
      case "train_step": {
        const { type: _type, ...row } = event;
        await this.#journal?.append([row]);
        const loss = row.loss === null ? "not finite" : row.loss.toFixed(3);
        this.#context.progress({ done: row.step, total: this.#run.config.steps, of: "steps", note: `loss ${loss}` });
        return;
      }
      case "checkpoint":
        this.files.push(...event.files);
        return;
      case "log":
        if (event.level === "warning") this.#context.warn(event.message);
        return;
      default:
        return;
    }
  }

  async #start(resumed: number, steps: number): Promise<void> {
    if (steps !== this.#run.config.steps)
      throw new DriverError("INTERNAL", `The bridge counts ${steps} steps: expected ${this.#run.config.steps}`);
    const path = join(this.#run.dir, "metrics.jsonl");
    await keepStepsUpTo(path, resumed);
    this.#journal = await Journal.open(path, MetricsRow, (row) => String(row.step));
  }

  async close(): Promise<void> {
    const journal = this.#journal;
    this.#journal = undefined;
    await journal?.close();
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

/**
 * Both sides render and tokenise the data on their own; training goes on only if they agree on every token and target.
 *
 * @throws {DriverError} `TOKENS_DIFFER`: the model would be trained on another text than the one that is served.
 */
function compareTokens(expected: Omit<DataReady, "type">, found: DataReady): void {
  const keys = ["rows", "tokens", "target_tokens", "token_ids_sha256", "targets_sha256"] as const;
  const different = keys.filter((key) => expected[key] !== found[key]);
  if (different.length === 0) return;
  const [key] = different;
  throw new DriverError(
    "TOKENS_DIFFER",
    `The training tokens of TypeScript and Python differ in ${different.join(", ")}: expected ${expected[key as "rows"]}, got ${found[key as "rows"]}`,
    {
      hint: "The model's tokenizer or chat template means different things to the two libraries. Please report it.",
      facts: { expected, found },
    },
  );
}

function checkCheckpoints(run: PlannedRun, files: readonly FileEntry[]): void {
  const missing = run.config.checkpoints.filter(
    (step) => !files.some((file) => file.path === `checkpoint-${step}/adapter_model.safetensors`),
  );
  if (missing.length > 0)
    throw new DriverError(
      "TRAIN_FAILED",
      `Training ended without checkpoints: expected steps ${missing.join(", ")}, got none of them`,
    );
}

async function runManifest(made: {
  run: PlannedRun;
  staged: StagedModel;
  dataset: LoadedDataset;
  workspace: Workspace;
  result: TrainResult;
  hello: Hello;
  data: Omit<DataReady, "type">;
  files: readonly FileEntry[];
  started: number;
}): Promise<Parameters<typeof writeManifest>[1]> {
  const { run, staged, dataset, hello, result, workspace } = made;
  const { type: _type, ...proofs } = result;
  return {
    schema_version: 1,
    kind: "run",
    id: run.id,
    status: "success",
    inputs: [...staged.files, { path: `${dataset.id}/data.jsonl`, sha256: dataset.sha256, bytes: dataset.bytes }],
    outputs: [...made.files, ...(await fileEntries(run.dir, ["config.json", "metrics.jsonl"]))],
    code: workspace.code,
    packages: { ...hello.packages, runtime: hello.runtime },
    device: hello.device,
    seed: run.config.training.seed,
    wall_seconds: (performance.now() - made.started) / 1000,
    facts: { proofs, data: made.data, num_threads: workspace.num_threads },
  };
}
