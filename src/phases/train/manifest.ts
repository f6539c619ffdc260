import { existsSync } from "node:fs";
import { join } from "node:path";
import { fileEntries, type writeManifest } from "../../artifacts/manifest.ts";
import type { LoadedDataset, TrainingRun } from "../../pipeline/handles.ts";
import type { Workspace } from "../../pipeline/workspace.ts";
import type { Hello, RunResult } from "../../protocol/wire.ts";
import type { PreparedData } from "./data.ts";
import { HELD_OUT_FILE, METRICS_FILE, type Recorder } from "./recorder.ts";

export interface FinishedRun {
  run: TrainingRun;
  workspace: Workspace;
  hello: Hello;
  data: PreparedData;
  recorder: Recorder;
  result: RunResult;
  /** Runs that the process did. */
  cohort: number;
  wall_seconds: number;
}

/** What a finished run was made of and how, with its proofs. */
export async function runManifest(made: FinishedRun): Promise<Parameters<typeof writeManifest>[1]> {
  const { run, hello, result, workspace, recorder } = made;
  const { planned, staged } = run;
  const { type: _type, prefix_cache, peak_memory_bytes, ...proofs } = result;
  const written = ["config.json", "preview.html", METRICS_FILE, HELD_OUT_FILE].filter((name) =>
    existsSync(join(planned.dir, name)),
  );
  return {
    schema_version: 1,
    kind: "run",
    id: planned.id,
    status: "success",
    inputs: [...staged.files, ...[run.data, run.eval_data, run.kl_data].flatMap((data) => (data ? [entry(data)] : []))],
    outputs: [...recorder.files, ...(await fileEntries(planned.dir, written))],
    code: workspace.code,
    packages: { ...hello.packages, runtime: hello.runtime },
    device: hello.device,
    seed: planned.config.training.seed,
    wall_seconds: made.wall_seconds,
    facts: {
      proofs,
      data: Object.fromEntries(made.data.expected.map(({ role, ...counts }) => [role, counts])),
      trained_rows: recorder.started?.train_rows ?? null,
      held_out_lines: made.data.train.rows.flatMap(({ line }, index) => (made.data.held_out.has(index) ? [line] : [])),
      engine: engineFacts(recorder),
      prefix_cache,
      peak_memory_bytes,
      cohort_runs: made.cohort,
      num_threads: workspace.num_threads,
    },
  };
}

const entry = (data: LoadedDataset) => ({ path: `${data.id}/data.jsonl`, sha256: data.sha256, bytes: data.bytes });

/** How the step was computed: none of it changes a result by more than rounding. */
function engineFacts({ started }: Recorder): Record<string, unknown> | null {
  if (started === undefined) return null;
  const { split_layer, split_max_rel_diff, prefix_cache, gradient_checkpointing, trainable_parameters } = started;
  return { split_layer, split_max_rel_diff, prefix_cache, gradient_checkpointing, trainable_parameters };
}
