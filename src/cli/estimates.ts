import type { CacheWish } from "../phases/train/cohorts.ts";
import type { Estimate } from "../phases/train/estimate.ts";
import { describeEstimate } from "../phases/train/estimate-words.ts";
import { estimateRuns } from "../phases/train/estimates.ts";
import type { TrainingRun } from "../pipeline/handles.ts";
import type { Workspace } from "../pipeline/workspace.ts";
import { describeTargets } from "../records/lora.ts";
import type { Io } from "./io.ts";

/** Tells what runs take before they are trained; the result is by the runs' ids. */
export function sayEstimates(
  runs: readonly TrainingRun[],
  workspace: Workspace,
  options: { jobs: number; cache: CacheWish },
  io: Io,
): Record<string, Estimate> {
  const estimates = estimateRuns(runs, workspace, options);
  for (const [index, { planned }] of runs.entries()) {
    const { lora } = planned.config;
    const what = lora === null ? "all weights" : `rank ${lora.r} on ${describeTargets(lora)}`;
    io.say(`\n${planned.label}: ${what}`);
    for (const line of describeEstimate(estimates[index] as Estimate)) io.say(`  ${line}`);
  }
  return Object.fromEntries(runs.map(({ planned }, index) => [planned.id, estimates[index] as Estimate]));
}
