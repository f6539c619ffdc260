import { join } from "node:path";
import { type PlannedExperiment, planExperiment } from "../../pipeline/plan-experiment.ts";
import { saveEval } from "../../pipeline/saved.ts";
import type { Experiment } from "../../records/experiment.ts";
import { type CacheFlags, cacheWish, chooseJobs, makeLibrary, makeWorkspace } from "../environment.ts";
import type { Io } from "../io.ts";
import { type CurvesByRun, printRates, type RatesByModel, readRates } from "../rates.ts";
import { absoluteName, runUnits, shortPath } from "../work.ts";

export interface ExperimentResult {
  experiment: string;
  eval: string;
  runs: Record<string, string>;
  models: RatesByModel;
  curves: CurvesByRun;
  parity: { passed: boolean; metrics: Record<string, Record<string, number>> };
  seconds: Record<string, number>;
  done: number;
  skipped: number;
  report: string;
}

/** Plans and runs an experiment in `folder`, and gives its results. */
export async function runExperiment(
  name: string,
  flags: CacheFlags & { dir: string },
  io: Io,
): Promise<ExperimentResult> {
  const library = makeLibrary();
  const workspace = await makeWorkspace(flags.dir, io);
  const experiment = await library.experiment(name);
  const planned = await planExperiment(experiment, library, workspace, {
    jobs: (staged) => chooseJobs(staged, workspace, io),
    cache: cacheWish(flags, workspace),
  });
  const jobs = chooseJobs(planned.staged, workspace, io);
  const { seconds, done, skipped } = await runUnits(planned.units, jobs, io);
  await save(planned, experiment);
  const { models, curves, parity } = await readRates(planned.evaluation);
  return {
    experiment: planned.name,
    eval: planned.evaluation.dir,
    runs: Object.fromEntries(planned.runs.map(({ planned: run }) => [run.label, run.dir])),
    models,
    curves,
    parity,
    seconds: { ...seconds },
    done,
    skipped,
    report: join(planned.evaluation.dir, "report", "report.html"),
  };
}

function save(planned: PlannedExperiment, experiment: Experiment): Promise<void> {
  return saveEval(planned.evaluation, {
    base_model: planned.base_model,
    questions: experiment.eval.questions.map(absoluteName),
    judge: absoluteName(experiment.eval.judge),
  });
}

export async function run(
  [[name = ""] = []]: string[][],
  flags: CacheFlags & { dir: string },
  io: Io,
): Promise<ExperimentResult> {
  const result = await runExperiment(name, flags, io);
  printRates(result, io);
  io.say(`Report: ${shortPath(result.report)}`);
  return result;
}
