import { copyFile, mkdir } from "node:fs/promises";
import { join } from "node:path";
import { writeFileAtomic, writeJsonAtomic } from "../../artifacts/atomic.ts";
import { lockFolder } from "../../artifacts/lock.ts";
import { outputsExist, readManifest, writeManifest } from "../../artifacts/manifest.ts";
import { bridgeCommand } from "../../bridge/environment.ts";
import { runJob } from "../../bridge/session.ts";
import { DriverError } from "../../errors.ts";
import type { PlannedRun, TrainingRun } from "../../pipeline/handles.ts";
import type { CohortMember, WorkUnit } from "../../pipeline/unit.ts";
import type { Workspace } from "../../pipeline/workspace.ts";
import type { ChildEvent, Hello, TrainJob, TrainRun } from "../../protocol/wire.ts";
import { describeTargets } from "../../records/lora.ts";
import type { FileEntry } from "../../records/manifest.ts";
import { type CacheWish, formCohorts, type PlannedCohort } from "./cohorts.ts";
import { type PreparedData, RowCache } from "./data.ts";
import { runManifest } from "./manifest.ts";
import { previewOf } from "./preview.ts";
import { Recorder } from "./recorder.ts";
import { describeProofs } from "./words.ts";

export const checkpointDir = (run: PlannedRun, step: number): string => join(run.dir, `checkpoint-${step}`);

export interface TrainOptions {
  /** Processes that may train side by side. */
  jobs: number;
  cache: CacheWish;
}

/**
 * One unit a run. Runs on one base that can share a process do: what is loaded once is not loaded again, and the frozen
 * prefix of a row is computed once. Each goes on from its own `last/` after a crash.
 */
export function trainUnits(runs: readonly TrainingRun[], workspace: Workspace, options: TrainOptions): WorkUnit[] {
  const rows = new RowCache();
  const cohorts = formCohorts(runs, options);
  return cohorts.flatMap((planned) => {
    const cohort = { run: (members: readonly CohortMember[]) => trainCohort(planned, members, rows, workspace) };
    return planned.runs.map((run) => ({ ...trainUnit(run), cohort }));
  });
}

function trainUnit({ planned, staged, data }: TrainingRun): WorkUnit {
  const { lora, training, steps, checkpoints } = planned.config;
  const rank = lora === null ? "" : `rank ${lora.r} on `;
  return {
    key: `train ${planned.label}`,
    phase: "train",
    needs: [`stage ${staged.id}`],
    output: planned.dir,
    summary: `${rank}${describeTargets(lora)}, ${data.id} (${data.rows.length} rows), ${steps} steps, seed ${training.seed}, ${checkpoints.length} checkpoints`,
    isDone: async () => {
      const manifest = await readManifest(join(planned.dir, "manifest.json"));
      return manifest !== undefined && (await outputsExist(planned.dir, manifest));
    },
    run: () => Promise.reject(new DriverError("INTERNAL", "A training unit runs in its cohort")),
  };
}

/** One run of a cohort while it is trained. */
interface Member {
  run: TrainingRun;
  slot: CohortMember;
  data: PreparedData;
  recorder: Recorder;
  started_ms: number;
}

async function trainCohort(
  { runs, prefix_cache }: PlannedCohort,
  slots: readonly CohortMember[],
  cache: RowCache,
  workspace: Workspace,
): Promise<void> {
  const members = slots.map((slot): Member => {
    const run = runs.find(({ planned }) => `train ${planned.label}` === slot.unit.key) as TrainingRun;
    const data = cache.prepare(run); // before Python starts: every fault of every data set
    return { run, slot, data, recorder: new Recorder(run.planned, data.expected, slot.context), started_ms: 0 };
  });
  const held: AsyncDisposable[] = [];
  try {
    for (const { run, data } of members) {
      held.push(await lockFolder(run.planned.dir));
      await writeJsonAtomic(join(run.planned.dir, "config.json"), run.planned.config);
      await writeFileAtomic(join(run.planned.dir, "preview.html"), previewOf(run, data));
    }
    await trainMembers(members, prefix_cache, workspace);
  } finally {
    for (const { recorder } of members) await recorder.close();
    for (const lock of held) await lock[Symbol.asyncDispose]();
  }
}

async function trainMembers(
  members: readonly Member[],
  prefix_cache: TrainJob["prefix_cache"],
  workspace: Workspace,
): Promise<void> {
  const [{ run: first, slot }] = members as [Member, ...Member[]];
  const log_dir = join(first.planned.dir, "logs");
  const python = await workspace.python();
  const director = new Director(members, workspace);
  try {
    director.begin(0); // the first waits for the imports, too
    await runJob(
      {
        type: "train",
        base_model_dir: first.staged.dir,
        base_sha256: first.staged.sha256,
        num_threads: workspace.num_threads,
        prefix_cache,
        runs: members.map(({ run }) => runJobOf(run)),
      },
      {
        ...bridgeCommand(python),
        signal: slot.context.signal,
        log_dir,
        log_name: "train",
        onEvent: (event) => director.handle(event),
      },
    );
  } finally {
    await shareLogs(log_dir, members.slice(1));
  }
}

function runJobOf({ planned, data, eval_data, kl_data }: TrainingRun): TrainRun {
  const { chat_template_kwargs, rendering, lora, training } = planned.config;
  return {
    run_dir: planned.dir,
    dataset_file: data.file,
    eval_dataset_file: eval_data?.file ?? null,
    kl_dataset_file: kl_data?.file ?? null,
    ...{ chat_template_kwargs, rendering, lora, training },
  };
}

/** Sends each event to the member that it is about, and finishes members one by one. */
class Director {
  readonly #members: readonly Member[];
  readonly #workspace: Workspace;
  #hello: Hello | undefined;
  #current: Member | undefined;

  constructor(members: readonly Member[], workspace: Workspace) {
    this.#members = members;
    this.#workspace = workspace;
  }

  async handle(event: ChildEvent): Promise<void> {
    if (event.type === "hello") this.#hello = event;
    else if (event.type === "run_start") this.begin(event.index);
    else if (event.type === "failure" || event.type === "train_result") return;
    else await this.#current?.recorder.handle(event);
    if (event.type === "train_start" && this.#workspace.cuda && event.device.startsWith("cpu"))
      this.#current?.slot.context.warn("a GPU is there but torch does not see it: training runs on the CPU");
    if (event.type === "run_result") await this.#finish();
  }

  begin(index: number): void {
    const member = this.#members[index];
    if (member !== undefined && member === this.#current) return;
    if (member === undefined || this.#current !== undefined)
      throw new DriverError("BRIDGE_PROTOCOL", `The bridge began run ${index} out of turn`);
    this.#current = member;
    member.started_ms = performance.now();
    member.slot.started();
  }

  async #finish(): Promise<void> {
    const member = this.#current;
    const result = member?.recorder.result;
    if (member === undefined || result === undefined || this.#hello === undefined)
      throw new DriverError("BRIDGE_PROTOCOL", "The bridge ended a run that it had not begun");
    await member.recorder.close();
    checkCheckpoints(member.run.planned, member.recorder.files);
    const manifest = await runManifest({
      run: member.run,
      workspace: this.#workspace,
      hello: this.#hello,
      expected: member.data.expected,
      recorder: member.recorder,
      result,
      cohort: this.#members.length,
      wall_seconds: (performance.now() - member.started_ms) / 1000,
    });
    await writeManifest(join(member.run.planned.dir, "manifest.json"), manifest);
    member.slot.context.note(describeProofs(result));
    this.#current = undefined;
    member.slot.finished();
  }
}

function checkCheckpoints(run: PlannedRun, files: readonly FileEntry[]): void {
  const missing = run.config.checkpoints.filter(
    (step) => !files.some((file) => file.path.startsWith(`checkpoint-${step}/`)),
  );
  if (missing.length > 0)
    throw new DriverError(
      "TRAIN_FAILED",
      `Training ended without checkpoints: expected steps ${missing.join(", ")}, got none of them`,
    );
}

/** One process wrote one log; each run's folder gets it. */
async function shareLogs(log_dir: string, others: readonly Member[]): Promise<void> {
  for (const { run } of others) {
    const folder = join(run.planned.dir, "logs");
    await mkdir(folder, { recursive: true });
    for (const name of ["train.stdout.log", "train.stderr.log"])
      await copyFile(join(log_dir, name), join(folder, name)).catch(() => {}); // never written if it could not be started
  }
}
