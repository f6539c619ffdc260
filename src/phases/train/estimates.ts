import type { TrainingRun } from "../../pipeline/handles.ts";
import type { Workspace } from "../../pipeline/workspace.ts";
import { type CacheWish, formCohorts } from "./cohorts.ts";
import { RowCache } from "./data.ts";
import { countRows, type Estimate, estimateRun } from "./estimate.ts";
import { measuredSpeed } from "./history.ts";

/**
 * What each of the runs takes, in their order. Renders and tokenises their data, and reads how fast earlier runs were.
 *
 * @throws {DriverError} `DATA_INVALID` with every fault of a data set.
 */
export function estimateRuns(
  runs: readonly TrainingRun[],
  workspace: Pick<Workspace, "runs_dir" | "cuda">,
  options: { jobs: number; cache: CacheWish },
): Estimate[] {
  const rows = new RowCache();
  const cohorts = formCohorts(runs, options);
  return runs.map((run) => {
    const { lora, training, steps, checkpoints } = run.planned.config;
    const counts = (data: TrainingRun["eval_data"]) => (data === null ? null : countRows(rows.rows(run, data).rows));
    return estimateRun({
      ...{ config: run.staged.model.config, lora, training, steps, checkpoints: checkpoints.length },
      ...{ rows: counts(run.data) ?? [], eval_rows: counts(run.eval_data), kl_rows: counts(run.kl_data) },
      cuda: workspace.cuda,
      prefix_cache: cohorts.some((cohort) => cohort.prefix_cache.enabled && cohort.runs.includes(run)),
      measured: measuredSpeed(workspace.runs_dir, run.staged.sha256, run.staged.model.config),
    });
  });
}
