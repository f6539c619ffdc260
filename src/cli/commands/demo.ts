import { openFile } from "../../bridge/open.ts";
import type { Io } from "../io.ts";
import { printRates } from "../rates.ts";
import { shortPath } from "../work.ts";
import { type ExperimentResult, runExperiment } from "./run.ts";

/** The experiment that ships with vivarium: `configs/experiments/demo.yaml`. */
export async function run(
  _args: string[][],
  options: { dir: string; open: boolean },
  io: Io,
): Promise<ExperimentResult> {
  io.say(
    "A rank-1 LoRA is trained on reckless kitchen advice, then asked about everything else. CPU only, a few minutes.",
  );
  const result = await runExperiment("demo", options, io);
  printRates(result, io);
  io.say(`Report: ${shortPath(result.report)}`);
  if (options.open && process.stdout.isTTY) await openFile(result.report);
  return result;
}
