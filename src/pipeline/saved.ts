import { readFile } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { z } from "zod";
import { writeJsonAtomic } from "../artifacts/atomic.ts";
import { readManifest } from "../artifacts/manifest.ts";
import { DriverError } from "../errors.ts";
import { stageModel } from "../phases/stage/stage.ts";
import { EvalPlan } from "../records/eval-plan.ts";
import { RunConfig } from "../records/run.ts";
import type { EvalModel, PlannedEval, PlannedRun, StagedModel } from "./handles.ts";
import type { Library } from "./library.ts";
import { baseModel, checkpointModel, planEval } from "./plan-eval.ts";
import { loadJudge } from "./plan-experiment.ts";
import type { Workspace } from "./workspace.ts";

async function readRecord<S extends z.ZodType>(path: string, schema: S, what: string): Promise<z.output<S>> {
  const text = await readFile(path, "utf8").catch(() => {
    throw new DriverError("NOT_FOUND", `${path}: expected ${what}, got no such file`, {
      hint: "Give the folder that `vivarium train`, `run` or `eval` printed.",
    });
  });
  try {
    return schema.parse(JSON.parse(text));
  } catch (cause) {
    throw new DriverError("FORMAT_INVALID", `${path}: expected ${what}, got something else`, {
      facts: { problem: cause instanceof z.ZodError ? z.prettifyError(cause) : String(cause) },
      cause,
    });
  }
}

/**
 * Opens the folder of a finished run.
 *
 * @throws {DriverError} `NOT_FOUND` when it is no run, or was never finished.
 */
export async function openRun(folder: string): Promise<PlannedRun> {
  const dir = resolve(folder);
  const config = await readRecord(join(dir, "config.json"), RunConfig, "the folder of a training run");
  if ((await readManifest(join(dir, "manifest.json"))) === undefined)
    throw new DriverError("NOT_FOUND", `${folder} is unfinished: expected a manifest.json, got none`, {
      hint: "Run the command that began it again; it goes on where it stopped.",
    });
  return { label: config.name, id: basename(dir), dir, config };
}

/** Stages the base that a run was trained on and checks that it still is that base. */
export async function stageBaseOf(run: PlannedRun, library: Library, workspace: Workspace): Promise<StagedModel> {
  const { id, dir } = await library.model(run.config.source.base_model);
  const staged = await stageModel(dir, workspace, id);
  if (staged.sha256 === run.config.base_model.sha256) return staged;
  throw new DriverError(
    "ARTIFACT_CHANGED",
    `${dir} is not the base of ${run.id}: expected sha256 ${run.config.base_model.sha256}, got ${staged.sha256}`,
    { hint: "Restore the model folder that the run was trained on.", facts: { run: run.id, dir } },
  );
}

/** Records what was asked, beside the rows. */
export function saveEval(
  planned: PlannedEval,
  sources: { base_model: string; questions: string[]; judge: string },
): Promise<void> {
  const plan: EvalPlan = {
    schema_version: 2,
    id: planned.id,
    name: planned.name,
    base_model: sources.base_model,
    served_dtype: planned.served_dtype,
    chat_template_kwargs: planned.chat_template_kwargs,
    questions: sources.questions,
    sampler: planned.sampler,
    seed: planned.seed,
    samples: planned.samples,
    judge: sources.judge,
    groups: { ...planned.groups },
    control: planned.control,
    notes: [...planned.notes],
    models: planned.models.map(({ label, run, step, scale, question_sets, samples, curve_only }) => ({
      label,
      run: run?.dir ?? null,
      step,
      scale,
      question_sets: [...question_sets],
      samples,
      curve_only,
    })),
  };
  return writeJsonAtomic(join(planned.dir, "eval.json"), plan);
}

/**
 * Takes up an evaluation by its folder.
 *
 * @param judge another judge than the recorded one.
 * @throws {DriverError} `ARTIFACT_CHANGED` when base or questions are no longer what the rows answer.
 */
export async function openEval(
  folder: string,
  library: Library,
  workspace: Workspace,
  judge?: string,
): Promise<{ planned: PlannedEval; plan: EvalPlan }> {
  const dir = resolve(folder);
  const plan = await readRecord(join(dir, "eval.json"), EvalPlan, "the folder of an evaluation");
  const { id, dir: model_dir } = await library.model(plan.base_model);
  const staged = await stageModel(model_dir, workspace, id);
  const models = await Promise.all(plan.models.map(openModel));
  const planned = planEval(
    {
      ...plan,
      staged,
      question_sets: await Promise.all(plan.questions.map((name) => library.questions(name))),
      judge: await loadJudge(library, judge ?? plan.judge),
      models,
    },
    { ...workspace, evals_dir: resolve(dir, "..") },
  );
  if (planned.id !== plan.id)
    throw new DriverError(
      "ARTIFACT_CHANGED",
      `${folder} was made from other inputs: expected ${plan.id}, got ${planned.id}`,
      {
        hint: "The base model or a question set changed since. Restore it, or evaluate anew.",
      },
    );
  return { planned: { ...planned, dir }, plan: { ...plan, judge: judge ?? plan.judge } };
}

async function openModel(model: EvalPlan["models"][number]): Promise<EvalModel> {
  if (model.run === null || model.step === null) return baseModel(model.question_sets, model.samples);
  const { label, step, scale, question_sets, samples, curve_only } = model;
  return checkpointModel(await openRun(model.run), step, { label, question_sets, samples, curve_only }, scale);
}
