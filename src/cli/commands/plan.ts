import { orderUnits } from "../../pipeline/execute.ts";
import type { StagedModel } from "../../pipeline/handles.ts";
import { planExperiment } from "../../pipeline/plan-experiment.ts";
import { type CacheFlags, cacheWish, chooseJobs, makeLibrary, makeWorkspace } from "../environment.ts";
import { sayEstimates } from "../estimates.ts";
import type { Io } from "../io.ts";
import { shortPath } from "../work.ts";

export async function run(
  [[name = ""] = []]: string[][],
  flags: CacheFlags & { dir: string },
  io: Io,
): Promise<unknown> {
  const library = makeLibrary();
  const workspace = await makeWorkspace(flags.dir, io);
  const cache = cacheWish(flags, workspace);
  const jobs = (staged: StagedModel) => chooseJobs(staged, workspace, io);
  const planned = await planExperiment(await library.experiment(name), library, workspace, { jobs, cache });
  const units = await Promise.all(
    orderUnits(planned.units).map(async (unit) => ({
      unit: unit.key,
      phase: unit.phase,
      done: await unit.isDone(),
      summary: unit.summary,
      output: shortPath(unit.output),
    })),
  );
  for (const unit of units) io.say(`${unit.done ? "=" : ">"} ${unit.unit.padEnd(24)} ${unit.summary}`);
  const undone = planned.runs.filter((run) =>
    units.some((unit) => !unit.done && unit.unit === `train ${run.planned.label}`),
  );
  const estimates = sayEstimates(undone, workspace, { jobs: jobs(planned.staged), cache }, io);
  const todo = units.filter((unit) => !unit.done).length;
  io.say(todo === 0 ? "\nNothing to do: all of it is done already." : `\n${todo} of ${units.length} units to do.`);
  return { experiment: planned.name, eval: planned.evaluation.dir, units, estimates };
}
