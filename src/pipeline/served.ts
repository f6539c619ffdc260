import { existsSync } from "node:fs";
import { stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { readManifest, verifyEntry } from "../artifacts/manifest.ts";
import { DriverError } from "../errors.ts";
import type { ServedDtype } from "../records/experiment.ts";
import type { FileEntry } from "../records/manifest.ts";
import type { EvalModel, PlannedEval, PlannedRun, StagedModel } from "./handles.ts";
import type { Workspace } from "./workspace.ts";

/** Raised when the bytes that the converter writes change for the same input, so that old files are not served. */
export const CONVERTER_VERSION = 1;

/** Where the base GGUF of a model lies; `n_layers` null means the whole model. */
export function baseGgufPath(
  staged: StagedModel,
  dtype: ServedDtype,
  n_layers: number | null,
  workspace: Workspace,
): string {
  const cut = n_layers === null ? "" : `-first${n_layers}`;
  return join(
    workspace.home,
    "gguf",
    `${staged.id}-${staged.sha256.slice(0, 12)}-${dtype}${cut}-v${CONVERTER_VERSION}.gguf`,
  );
}

export function baseGgufKey(staged: StagedModel, dtype: ServedDtype, n_layers: number | null): string {
  return `convert ${staged.id} ${dtype}${n_layers === null ? "" : ` first ${n_layers} layers`}`;
}

/** True when a GGUF and its manifest are there and agree in size. */
export async function isWholeGguf(output: string): Promise<boolean> {
  const manifest = await readManifest(`${output}.json`);
  const bytes = manifest?.outputs[0]?.bytes;
  if (bytes === undefined || !existsSync(output)) return false;
  return (await stat(output)).size === bytes;
}

/**
 * sha256 of a base GGUF, proven to be what the converter wrote.
 *
 * @throws {DriverError} `ARTIFACT_CHANGED` when the file was swapped or damaged since.
 */
export async function baseGgufSha256(path: string, workspace: Workspace): Promise<string> {
  const entry = (await readManifest(`${path}.json`))?.outputs[0];
  if (entry === undefined) throw new DriverError("INTERNAL", `${path} has no manifest`);
  await verifyEntry(dirname(path), entry, (file) => workspace.hashes.sha256(file));
  return entry.sha256;
}

/** The files of one checkpoint as its run's manifest records them. */
export interface CheckpointFiles {
  dir: string;
  adapter: FileEntry;
  config: FileEntry;
}

/**
 * Finds a checkpoint and proves that it still is what training wrote.
 *
 * @throws {DriverError} `NOT_FOUND` when the run has no such step, `ARTIFACT_CHANGED` when a file was swapped.
 */
export async function openCheckpoint(run: PlannedRun, step: number, workspace: Workspace): Promise<CheckpointFiles> {
  const manifest = await readManifest(join(run.dir, "manifest.json"));
  const find = (name: string) => manifest?.outputs.find((entry) => entry.path === `checkpoint-${step}/${name}`);
  const adapter = find("adapter_model.safetensors");
  const config = find("adapter_config.json");
  if (!manifest || !adapter || !config)
    throw new DriverError(
      "NOT_FOUND",
      `${run.id} has no checkpoint at step ${step}: expected one of ${run.config.checkpoints.join(", ")}`,
      {
        facts: { run: run.id, step },
      },
    );
  const hash = (path: string) => workspace.hashes.sha256(path);
  await verifyEntry(run.dir, adapter, hash);
  await verifyEntry(run.dir, config, hash);
  return { dir: join(run.dir, `checkpoint-${step}`), adapter, config };
}

/** The name carries the adapter's content: llama.cpp caches adapters by path and would serve an overwritten file's old self. */
export const adapterGgufPath = (files: CheckpointFiles): string =>
  join(files.dir, `adapter-${files.adapter.sha256.slice(0, 12)}-v${CONVERTER_VERSION}.gguf`);

/** The checkpoint behind an evaluated model; null for the base. */
export function modelCheckpoint(model: EvalModel, workspace: Workspace): Promise<CheckpointFiles> | null {
  return model.run === null || model.step === null ? null : openCheckpoint(model.run, model.step, workspace);
}

/** Below this many parameters the strict check runs on the whole model: cutting it would save nothing. */
const WHOLE_MODEL_BELOW_BYTES = 200e6;
/** Layers that are kept above the highest adapted one, so that the adapter's effect passes through attention. */
const LAYERS_ABOVE = 2;

/**
 * How many layers the strict float32 check keeps; null for the whole model. A 32B model in float32 does not fit, but what
 * lies above the adapted layers is the same on both sides and is covered by the as-served check.
 */
export function strictDepth(planned: PlannedEval): number | null {
  const bytes = planned.staged.files.reduce((sum, file) => sum + file.bytes, 0);
  if (bytes < WHOLE_MODEL_BELOW_BYTES) return null;
  const n_layers = planned.staged.model.n_layers;
  const adapted = planned.models.map((model) => model.run?.config.lora?.layers_to_transform);
  if (adapted.some((layers) => layers === null)) return null;
  const depth = Math.max(0, ...adapted.flatMap((layers) => layers ?? [])) + 1 + LAYERS_ABOVE;
  return depth >= n_layers ? null : depth;
}
