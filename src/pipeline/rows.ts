import { join } from "node:path";
import { z } from "zod";
import { sha256 } from "../artifacts/hash.ts";
import { readManifest, verifyEntry } from "../artifacts/manifest.ts";
import { DriverError } from "../errors.ts";
import type { Manifest } from "../records/manifest.ts";
import type { Judgement, Response } from "../records/response.ts";
import type { EvalModel, PlannedEval } from "./handles.ts";

/**
 * File stem of a judge's rows inside a model's folder. It carries the digest of the judge's rules: scores of two versions
 * of a judge never share a file.
 */
export const judgementStem = (planned: PlannedEval): string =>
  join("judgements", `${planned.judge.id}-${planned.judge_sha256.slice(0, 8)}`);

/** Samples per question that a finished folder holds, by question set. */
export function sampledCounts(manifest: Manifest | undefined): Record<string, number> {
  return z.record(z.string(), z.int()).catch({}).parse(manifest?.facts.samples);
}

/**
 * Proves that a model's responses are complete before anything is said about them.
 *
 * @throws {DriverError} `NOT_FOUND` while sampling is unfinished, `ARTIFACT_CHANGED` when rows were changed since.
 */
export async function requireSampled(planned: PlannedEval, model: EvalModel): Promise<void> {
  const dir = join(planned.dir, model.id);
  const manifest = await readManifest(join(dir, "sample.manifest.json"));
  const have = sampledCounts(manifest);
  const lacking = model.question_sets.filter((set) => (have[set] ?? 0) < model.samples);
  const entry = manifest?.outputs[0];
  if (entry === undefined || lacking.length > 0)
    throw new DriverError(
      "NOT_FOUND",
      `${model.label} is not sampled yet: expected ${model.samples} responses to each question of ${model.question_sets.join(", ")}, got an unfinished folder`,
      { hint: "Run `vivarium sample`, `eval` or `run` again; it goes on where it stopped.", facts: { dir, lacking } },
    );
  await verifyEntry(dir, entry);
}

/**
 * Proves that judgements are about these very texts, not about other ones under the same keys.
 *
 * @throws {DriverError} `ARTIFACT_CHANGED`.
 */
export function validateJudged(responses: readonly Response[], judgements: readonly Judgement[], path: string): void {
  const texts = new Map(responses.map((row) => [row.key, sha256(row.text)]));
  const foreign = judgements.filter((row) => texts.get(row.response_key) !== row.response_sha256);
  const [first] = foreign;
  if (first === undefined) return;
  throw new DriverError(
    "ARTIFACT_CHANGED",
    `${path}: expected judgements of the responses beside it, got ${foreign.length} of other texts, e.g. ${first.key}`,
    { hint: "Move the file away and judge again.", facts: { path, key: first.key } },
  );
}
