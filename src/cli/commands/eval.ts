import { join } from "node:path";
import { stageUnit } from "../../phases/stage/stage.ts";
import { checkJudge } from "../../pipeline/plan-eval.ts";
import { evalUnits, linkUnits } from "../../pipeline/plan-experiment.ts";
import { saveEval } from "../../pipeline/saved.ts";
import type { PhaseName } from "../../pipeline/unit.ts";
import { chooseJobs, makeLibrary, makeWorkspace } from "../environment.ts";
import { type EvalFlags, planFromFlags } from "../eval-wish.ts";
import type { Io } from "../io.ts";
import { printRates, readRates } from "../rates.ts";
import { absoluteName, runUnits, shortPath } from "../work.ts";

/** Phases of an evaluation up to the responses. */
const SAMPLING: readonly PhaseName[] = ["stage", "convert", "parity", "sample"];

/** Plans an evaluation and does its units, all of them or those up to the responses. */
export async function evaluate(folders: string[], flags: EvalFlags, io: Io, until: "sample" | "report") {
  const library = makeLibrary();
  const workspace = await makeWorkspace(flags.dir, io);
  const { planned, base_model, judge } = await planFromFlags(folders, flags, library, workspace);
  if (until === "report") checkJudge(planned);
  const jobs = chooseJobs(planned.staged, workspace, io);
  const units = [stageUnit(planned.staged, workspace), ...evalUnits(planned, workspace)];
  const wanted = until === "report" ? units : units.filter((unit) => SAMPLING.includes(unit.phase));
  const { seconds } = await runUnits(linkUnits(wanted), jobs, io);
  await saveEval(planned, { base_model, questions: flags.questions.map(absoluteName), judge: absoluteName(judge) });
  return { planned, seconds };
}

export async function run([folders = []]: string[][], flags: EvalFlags, io: Io): Promise<unknown> {
  const { planned, seconds } = await evaluate(folders, flags, io, "report");
  const { models, curves, parity } = await readRates(planned);
  const report = join(planned.dir, "report", "report.html");
  printRates({ models, curves }, io);
  io.say(`Report: ${shortPath(report)}`);
  return { eval: planned.dir, models, curves, parity, seconds, report };
}
