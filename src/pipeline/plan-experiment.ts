import { readFile } from "node:fs/promises";
import { hashJson, sha256 } from "../artifacts/hash.ts";
import { DriverError } from "../errors.ts";
import { defaultTemplateKwargs } from "../formats/chat.ts";
import { nearest } from "../formats/nearest.ts";
import { makeRuleJudge } from "../judges/rule/judge.ts";
import { convertAdaptersUnit, convertBaseUnit } from "../phases/convert/convert.ts";
import { judgeUnit } from "../phases/judge/run.ts";
import { parityUnit } from "../phases/parity/run.ts";
import { reportUnit } from "../phases/report/run.ts";
import { sampleUnit } from "../phases/sample/run.ts";
import { stageModel, stageUnit } from "../phases/stage/stage.ts";
import type { CacheWish } from "../phases/train/cohorts.ts";
import { planRun } from "../phases/train/plan.ts";
import { trainUnits } from "../phases/train/run.ts";
import { type Experiment, type JudgeConfig, SAMPLER_DEFAULTS } from "../records/experiment.ts";
import { Recipe } from "../records/recipe.ts";
import type { EvalModel, PlannedEval, PlannedRun, StagedModel, TrainingRun } from "./handles.ts";
import type { Library } from "./library.ts";
import { baseModel, checkJudge, checkpointModel, planEval } from "./plan-eval.ts";
import { strictDepth } from "./served.ts";
import type { WorkUnit } from "./unit.ts";
import type { Workspace } from "./workspace.ts";

/** Raised when the rule judge scores differently, so that old judgements are not mixed with new ones. */
const RULE_JUDGE_VERSION = 1;

export interface PlannedExperiment {
  name: string;
  staged: StagedModel;
  /** The base as a later command finds it: an id or an absolute folder. */
  base_model: string;
  runs: TrainingRun[];
  evaluation: PlannedEval;
  units: WorkUnit[];
}

export interface LoadedJudge {
  config: JudgeConfig;
  sha256: string;
  world_file: string;
}

/** A judge with the digest of everything that its scores depend on. */
export async function loadJudge(library: Library, name: string): Promise<LoadedJudge> {
  const { config, world_file } = await library.judge(name);
  const world = sha256(await readFile(world_file));
  return { config, world_file, sha256: hashJson({ config, world, version: RULE_JUDGE_VERSION }) };
}

/** Recipes of a run, the weaker first: the named one, then what stands beside it. */
export async function runRecipes(library: Library, spec: Recipe & { recipe?: string | undefined }): Promise<Recipe[]> {
  const names = Object.keys(Recipe.shape);
  const own = Object.fromEntries(
    Object.entries(spec).filter(([key, value]) => names.includes(key) && value !== undefined),
  );
  return [...(spec.recipe === undefined ? [] : [await library.recipe(spec.recipe)]), own as Recipe];
}

export interface PlanOptions {
  /** Processes that may run side by side on this base. */
  jobs(staged: StagedModel): number;
  cache: CacheWish;
}

/** Everything that an experiment will do, decided before anything is done. */
export async function planExperiment(
  experiment: Experiment,
  library: Library,
  workspace: Workspace,
  options: PlanOptions,
): Promise<PlannedExperiment> {
  const { id, dir, source } = await library.model(experiment.base_model);
  const staged = await stageModel(dir, workspace, id);
  const runs: TrainingRun[] = [];
  for (const [label, spec] of Object.entries(experiment.runs)) {
    const recipes = await runRecipes(library, spec);
    const data = await loadRunData(library, spec);
    runs.push(planRun({ label, name: label, recipes, staged, base_model: source, ...data }, workspace));
  }
  const evaluation = await planExperimentEval(
    experiment,
    staged,
    runs.map(({ planned }) => planned),
    library,
    workspace,
  );
  checkJudge(evaluation);
  const training = trainUnits(runs, workspace, { jobs: options.jobs(staged), cache: options.cache });
  return {
    name: experiment.name,
    staged,
    base_model: source,
    runs,
    evaluation,
    units: linkUnits([stageUnit(staged, workspace), ...training, ...evalUnits(evaluation, workspace)]),
  };
}

/** The data sets that a run reads, by id or path. */
export async function loadRunData(
  library: Library,
  spec: { data: string; eval_data?: string | undefined; kl_data?: string | undefined },
): Promise<Pick<TrainingRun, "data" | "eval_data" | "kl_data">> {
  const { data, eval_data, kl_data } = spec;
  return {
    data: await library.dataset(data),
    eval_data: eval_data === undefined ? null : await library.dataset(eval_data),
    kl_data: kl_data === undefined ? null : await library.dataset(kl_data),
  };
}

async function planExperimentEval(
  experiment: Experiment,
  staged: StagedModel,
  runs: readonly PlannedRun[],
  library: Library,
  workspace: Workspace,
): Promise<PlannedEval> {
  const spec = experiment.eval;
  const sets = await Promise.all(spec.questions.map((name) => library.questions(name)));
  const ids = sets.map((set) => set.id);
  const named = (label: string): PlannedRun => {
    const run = runs.find((candidate) => candidate.label === label);
    if (run !== undefined) return run;
    const near = nearest(
      label,
      runs.map((candidate) => candidate.label),
    );
    throw new DriverError(
      "CONFIG_INVALID",
      `eval: expected a run of this experiment (${runs.map((r) => r.label).join(", ")}), got ${label}`,
      {
        ...(near === undefined ? {} : { hint: `Did you mean ${near}?` }),
      },
    );
  };
  const models: EvalModel[] = [
    baseModel(ids, spec.samples),
    ...runs.map((run) =>
      checkpointModel(run, run.config.steps, {
        label: run.label,
        question_sets: ids,
        samples: spec.samples,
        curve_only: false,
      }),
    ),
  ];
  const { curve } = spec;
  for (const label of curve?.runs ?? [])
    models.push(
      ...curveModels(named(label), curveSets(curve?.questions ?? [], spec.questions, ids), curve?.samples ?? 1),
    );
  if (spec.control !== undefined) named(spec.control);
  return planEval(
    {
      name: experiment.name,
      staged,
      served_dtype: experiment.served_dtype,
      chat_template_kwargs: commonTemplateKwargs(runs, staged),
      question_sets: sets,
      sampler: { ...SAMPLER_DEFAULTS, ...dropUndefined(spec.sampler) },
      seed: spec.seed,
      samples: spec.samples,
      judge: await loadJudge(library, spec.judge),
      groups: spec.groups,
      models,
      control: spec.control ?? null,
      notes: experiment.notes,
    },
    workspace,
  );
}

/**
 * The chat template's arguments under which all runs were trained: prompts are rendered with them.
 *
 * @throws {DriverError} `CONFIG_INVALID` when runs differ: one of them would be measured with another prompt.
 */
function commonTemplateKwargs(runs: readonly PlannedRun[], staged: StagedModel): PlannedEval["chat_template_kwargs"] {
  const [first, ...others] = runs;
  if (first === undefined) return defaultTemplateKwargs(staged.chat.template);
  const wanted = first.config.chat_template_kwargs;
  const odd = others.find((run) => hashJson(run.config.chat_template_kwargs) !== hashJson(wanted));
  if (odd === undefined) return wanted;
  throw new DriverError(
    "CONFIG_INVALID",
    `runs: expected one thinking mode for all, since all are asked with one prompt, got ${first.label}: ${first.config.rendering.thinking} and ${odd.label}: ${odd.config.rendering.thinking}`,
    { hint: "Evaluate runs of another thinking mode in an experiment of their own." },
  );
}

/** The curve's question sets by id: they are named as under `eval.questions`, of which they are a part. */
function curveSets(wish: readonly string[], questions: readonly string[], ids: readonly string[]): string[] {
  return wish.map((name) => {
    const index = questions.indexOf(name) >= 0 ? questions.indexOf(name) : ids.indexOf(name);
    const id = ids[index];
    if (id !== undefined) return id;
    const near = nearest(name, questions);
    throw new DriverError(
      "CONFIG_INVALID",
      `eval.curve.questions: expected some of ${questions.join(", ")}, got ${name}`,
      {
        ...(near === undefined ? {} : { hint: `Did you mean ${near}?` }),
      },
    );
  });
}

/** Every checkpoint of a run but the last, which is a row of the tables already. */
function curveModels(run: PlannedRun, question_sets: readonly string[], samples: number): EvalModel[] {
  return run.config.checkpoints
    .filter((step) => step !== run.config.steps)
    .map((step) =>
      checkpointModel(run, step, { label: `${run.label}@${step}`, question_sets, samples, curve_only: true }),
    );
}

function dropUndefined<T extends object>(value: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(value).filter(([, member]) => member !== undefined)) as never;
}

/** The units of an evaluation: conversions, the gate, then per model samples and judgements, then the report. */
export function evalUnits(planned: PlannedEval, workspace: Workspace): WorkUnit[] {
  const { staged, judge, judge_world } = planned;
  const depth = strictDepth(planned);
  const runs = new Map(planned.models.flatMap((model) => (model.run ? [[model.run.id, model.run] as const] : [])));
  const steps = (run: PlannedRun) => [
    ...new Set(
      planned.models.flatMap((model) => (model.run?.id === run.id && model.step !== null ? [model.step] : [])),
    ),
  ];
  const bases = [convertBaseUnit(staged, planned.served_dtype, null, workspace)];
  if (planned.served_dtype !== "f32" || depth !== null) bases.push(convertBaseUnit(staged, "f32", depth, workspace));
  return [
    ...bases,
    ...[...runs.values()].map((run) => convertAdaptersUnit(run, steps(run), staged, workspace)),
    parityUnit(planned, workspace),
    ...planned.models.map((model) => sampleUnit(planned, model, workspace)),
    ...planned.models.map((model) =>
      judgeUnit(planned, model, async () => makeRuleJudge(judge.id, judge_world), workspace),
    ),
    reportUnit(planned, workspace),
  ];
}

/** Drops needs whose units are not part of this plan: their files are there already, or the unit itself says what is missing. */
export function linkUnits(units: readonly WorkUnit[]): WorkUnit[] {
  const keys = new Set(units.map((unit) => unit.key));
  return units.map((unit) => ({ ...unit, needs: unit.needs.filter((key) => keys.has(key)) }));
}
