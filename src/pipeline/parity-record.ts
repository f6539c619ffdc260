import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { hashJson } from "../artifacts/hash.ts";
import { DriverError } from "../errors.ts";
import { ParityRecord } from "../records/parity.ts";
import type { EvalModel, PlannedEval } from "./handles.ts";
import { adapterGgufPath, baseGgufPath, baseGgufSha256, modelCheckpoint, strictDepth } from "./served.ts";
import type { Workspace } from "./workspace.ts";

/** Raised when the gate measures or bounds differently, so that old verdicts are not trusted. */
const GATE_VERSION = 1;

/** Everything that a verdict is about: sha256 of the files of both sides, and the versions of what computes. */
export async function parityInputs(
  planned: PlannedEval,
  model: EvalModel,
  workspace: Workspace,
): Promise<Record<string, string>> {
  const base = baseGgufPath(planned.staged, planned.served_dtype, null, workspace);
  const checkpoint = await modelCheckpoint(model, workspace);
  return {
    base_model: planned.staged.sha256,
    base_gguf: await baseGgufSha256(base, workspace),
    strict_gguf: await baseGgufSha256(baseGgufPath(planned.staged, "f32", strictDepth(planned), workspace), workspace),
    engine: workspace.engine,
    bridge: workspace.bridge,
    template_kwargs: hashJson(planned.chat_template_kwargs),
    ...(checkpoint === null
      ? {}
      : {
          adapter: checkpoint.adapter.sha256,
          adapter_config: checkpoint.config.sha256,
          adapter_gguf: await workspace.hashes.sha256(adapterGgufPath(checkpoint)),
        }),
  };
}

export function parityKey(inputs: Record<string, string>): string {
  return hashJson({ gate: GATE_VERSION, ...inputs });
}

export async function readParity(path: string): Promise<ParityRecord | undefined> {
  const text = await readFile(path, "utf8").catch(() => undefined);
  if (text === undefined) return undefined;
  try {
    return ParityRecord.parse(JSON.parse(text));
  } catch {
    return undefined; // damaged or of an older version: no verdict, so the gate measures again
  }
}

/**
 * What a response depends on beside its prompt and seed: rows of two different ones must never share a journal. The bridge
 * is not part of it: a newer PEFT asks for a new verdict, not for new responses.
 */
export function servedKey({ base_gguf, adapter_gguf, engine, template_kwargs }: Record<string, string>): string {
  return hashJson({ base_gguf, adapter_gguf, engine, template_kwargs });
}

/** The verdict on exactly these files, or undefined where there is none. */
export async function currentParity(
  planned: PlannedEval,
  model: EvalModel,
  workspace: Workspace,
): Promise<ParityRecord | undefined> {
  const record = await readParity(join(planned.dir, model.id, "parity.json"));
  if (record === undefined) return undefined;
  return record.key === parityKey(await parityInputs(planned, model, workspace)) ? record : undefined;
}

/**
 * Lets a model be sampled only if the gate passed on the very files that will be served.
 *
 * @throws {DriverError} `PARITY_REFUSED`.
 */
export async function requirePass(planned: PlannedEval, model: EvalModel, workspace: Workspace): Promise<ParityRecord> {
  const record = await currentParity(planned, model, workspace);
  if (record?.verdict === "pass") return record;
  const found = record === undefined ? "no verdict on these files" : record.verdict;
  throw new DriverError("PARITY_REFUSED", `Cannot sample ${model.label}: expected a parity pass, got ${found}`, {
    hint: `See ${join(planned.dir, model.id, "parity.json")}; nothing is sampled that llama.cpp does not apply as PEFT trained it.`,
    facts: { model: model.id, verdict: found },
  });
}
