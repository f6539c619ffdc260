import { copyFile, mkdir } from "node:fs/promises";
import { join } from "node:path";
import { writeFileAtomic, writeJsonAtomic } from "../../artifacts/atomic.ts";
import { lockFolder } from "../../artifacts/lock.ts";
import { outputsExist, readManifest } from "../../artifacts/manifest.ts";
import { bridgeCommand } from "../../bridge/environment.ts";
import { runJob } from "../../bridge/session.ts";
import { DriverError } from "../../errors.ts";
import type { PlannedRun, TrainingRun } from "../../pipeline/handles.ts";
import type { CohortMember, WorkUnit } from "../../pipeline/unit.ts";
import type { Workspace } from "../../pipeline/workspace.ts";
import type { Failure, TrainJob, TrainRun } from "../../protocol/wire.ts";
import { describeTargets } from "../../records/lora.ts";
import { type CacheWish, formCohorts, type PlannedCohort } from "./cohorts.ts";
import { RowCache } from "./data.ts";
import { Director, type Member } from "./director.ts";
import { previewOf } from "./preview.ts";
import { Recorder } from "./recorder.ts";

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
    for (const { run, data, slot } of members) {
      held.push(await lockFolder(run.planned.dir));
      await writeJsonAtomic(join(run.planned.dir, "config.json"), run.planned.config);
      await writeFileAtomic(join(run.planned.dir, "preview.html"), previewOf(run, data));
      if (data.overlap > 0)
        slot.context.warn(`${data.overlap} held-out rows are trained on, too: their loss is not of unseen rows`);
    }
    await trainAll(members, prefix_cache, workspace);
  } finally {
    for (const { recorder } of members) await recorder.close();
    for (const lock of held) await lock[Symbol.asyncDispose]();
  }
}

/** What a run can do wrong by itself, as the bridge names it; anything else would meet the next run, too. */
const OWN_FAILURES: readonly unknown[] = ["NON_FINITE_LOSS", "BAD_DATA"] satisfies Failure["code"][];

/**
 * Trains all members. One that fails by itself, as a run that diverges, does not take along those after it.
 *
 * @throws the first failure, once the others are done.
 */
async function trainAll(
  members: readonly Member[],
  prefix_cache: TrainJob["prefix_cache"],
  workspace: Workspace,
): Promise<void> {
  let failure: unknown;
  for (let rest = members; rest.length > 0; ) {
    const director = new Director(rest, workspace);
    try {
      await trainMembers(rest, director, prefix_cache, workspace);
      break;
    } catch (error) {
      const position = director.position;
      const is_own = error instanceof DriverError && OWN_FAILURES.includes(error.facts.failure_code);
      if (!is_own || position === undefined) throw failure ?? error;
      failure ??= error;
      rest[position]?.slot.context.warn(error.message);
      rest = rest.slice(position + 1);
    }
  }
  if (failure !== undefined) throw failure;
}

async function trainMembers(
  members: readonly Member[],
  director: Director,
  prefix_cache: TrainJob["prefix_cache"],
  workspace: Workspace,
): Promise<void> {
  const [{ run: first, slot }] = members as [Member, ...Member[]];
  const log_dir = join(first.planned.dir, "logs");
  const python = await workspace.python();
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

/** One process wrote one log; each run's folder gets it. */
async function shareLogs(log_dir: string, others: readonly Member[]): Promise<void> {
  for (const { run } of others) {
    const folder = join(run.planned.dir, "logs");
    await mkdir(folder, { recursive: true });
    for (const name of ["train.stdout.log", "train.stderr.log"])
      await copyFile(join(log_dir, name), join(folder, name)).catch(() => {}); // never written if it could not be started
  }
}
