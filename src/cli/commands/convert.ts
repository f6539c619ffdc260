import { convertAdaptersUnit } from "../../phases/convert/convert.ts";
import { checkServable } from "../../pipeline/plan-eval.ts";
import { linkUnits } from "../../pipeline/plan-experiment.ts";
import { openRun, stageBaseOf } from "../../pipeline/saved.ts";
import { adapterGgufPath, openCheckpoint } from "../../pipeline/served.ts";
import { chooseCheckpoints } from "../checkpoints.ts";
import { makeLibrary, makeWorkspace } from "../environment.ts";
import type { Io } from "../io.ts";
import { runUnits, shortPath } from "../work.ts";

export async function run(
  [[folder = ""] = []]: string[][],
  options: { checkpoints: string },
  io: Io,
): Promise<unknown> {
  const workspace = await makeWorkspace(".", io);
  const planned = await openRun(folder);
  checkServable(planned);
  const staged = await stageBaseOf(planned, makeLibrary(), workspace);
  const steps = chooseCheckpoints(planned, options.checkpoints);
  await runUnits(linkUnits([convertAdaptersUnit(planned, steps, staged, workspace)]), 1, io);
  const adapters = await Promise.all(
    steps.map(async (step) => {
      const files = await openCheckpoint(planned, step, workspace);
      return { step, adapter_sha256: files.adapter.sha256, gguf: adapterGgufPath(files) };
    }),
  );
  for (const adapter of adapters) io.say(`step ${adapter.step}: ${shortPath(adapter.gguf)}`);
  return { run: planned.id, adapters };
}
