import { join } from "node:path";
import { openFile } from "../../bridge/open.ts";
import { reportUnit } from "../../phases/report/run.ts";
import { linkUnits } from "../../pipeline/plan-experiment.ts";
import { openEval } from "../../pipeline/saved.ts";
import { makeLibrary, makeWorkspace } from "../environment.ts";
import type { Io } from "../io.ts";
import { printRates, readRates } from "../rates.ts";
import { runUnits, shortPath } from "../work.ts";

export async function run([[folder = ""] = []]: string[][], options: { open?: boolean }, io: Io): Promise<unknown> {
  const workspace = await makeWorkspace(".", io);
  const { planned } = await openEval(folder, makeLibrary(), workspace);
  const unit = { ...reportUnit(planned, workspace), isDone: async () => false };
  await runUnits(linkUnits([unit]), 1, io);
  const { models, curves } = await readRates(planned);
  const report = join(planned.dir, "report", "report.html");
  printRates({ models, curves }, io);
  io.say(`Report: ${shortPath(report)}`);
  if (options.open === true) await openFile(report);
  return { eval: planned.dir, models, curves, report };
}
