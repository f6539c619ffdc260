import { existsSync } from "node:fs";
import { mkdir, rename } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { readManifest, writeManifest } from "../../artifacts/manifest.ts";
import { convertAdapter } from "../../formats/gguf/adapter.ts";
import { convertBase } from "../../formats/gguf/base.ts";
import type { PlannedRun, StagedModel } from "../../pipeline/handles.ts";
import { adapterGgufPath, baseGgufKey, baseGgufPath, isWholeGguf, openCheckpoint } from "../../pipeline/served.ts";
import type { WorkUnit } from "../../pipeline/unit.ts";
import type { Workspace } from "../../pipeline/workspace.ts";
import type { ServedDtype } from "../../records/experiment.ts";

/** The unit that writes a base model as GGUF. The manifest beside it is written last. */
export function convertBaseUnit(
  staged: StagedModel,
  dtype: ServedDtype,
  n_layers: number | null,
  workspace: Workspace,
): WorkUnit {
  const output = baseGgufPath(staged, dtype, n_layers, workspace);
  return {
    key: baseGgufKey(staged, dtype, n_layers),
    phase: "convert",
    needs: [`stage ${staged.id}`],
    output,
    summary: `base GGUF in ${dtype}${n_layers === null ? "" : `, first ${n_layers} of ${staged.model.n_layers} layers, for the strict parity check`}`,
    isDone: () => isWholeGguf(output),
    run: async () => {
      const started = performance.now();
      await mkdir(dirname(output), { recursive: true });
      const temporary = `${output}.new-${process.pid}`; // another process may be converting the same base
      const made = await convertBase(staged.model, temporary, { dtype, ...(n_layers === null ? {} : { n_layers }) });
      await rename(temporary, output);
      await writeManifest(`${output}.json`, {
        schema_version: 1,
        kind: "base",
        id: staged.sha256,
        status: "success",
        inputs: [...staged.files],
        outputs: [{ path: basename(output), sha256: made.sha256, bytes: made.bytes }],
        code: workspace.code,
        packages: {},
        device: "none",
        seed: null,
        wall_seconds: (performance.now() - started) / 1000,
        facts: { dtype, n_layers: n_layers ?? staged.model.n_layers, tensors: made.tensors },
      });
    },
  };
}

/** The unit that writes the adapters of one run's checkpoints as GGUF, beside the checkpoints. */
export function convertAdaptersUnit(
  run: PlannedRun,
  steps: readonly number[],
  staged: StagedModel,
  workspace: Workspace,
): WorkUnit {
  const all = async () => Promise.all(steps.map((step) => openCheckpoint(run, step, workspace)));
  return {
    key: `convert ${run.label}`,
    phase: "convert",
    needs: [`train ${run.label}`, `stage ${staged.id}`],
    output: run.dir,
    summary: `${steps.length} adapter GGUF${steps.length === 1 ? "" : "s"}, PEFT's scale folded into B`,
    isDone: async () =>
      (await readManifest(join(run.dir, "manifest.json"))) !== undefined &&
      (await all()).every((files) => existsSync(adapterGgufPath(files))),
    run: async () => {
      for (const files of await all()) {
        const output = adapterGgufPath(files);
        if (existsSync(output)) continue;
        const temporary = `${output}.new-${process.pid}`;
        await convertAdapter(files.dir, temporary, { architecture: staged.model.architecture });
        await rename(temporary, output);
      }
    },
  };
}
