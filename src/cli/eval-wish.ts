import { DriverError } from "../errors.ts";
import type { EvalModel, PlannedEval, PlannedRun } from "../pipeline/handles.ts";
import type { Library } from "../pipeline/library.ts";
import { baseModel, checkpointModel, planEval } from "../pipeline/plan-eval.ts";
import { loadJudge } from "../pipeline/plan-experiment.ts";
import { openRun, stageBaseOf } from "../pipeline/saved.ts";
import type { Workspace } from "../pipeline/workspace.ts";
import { SAMPLER_DEFAULTS, type ServedDtype } from "../records/experiment.ts";
import { Sampler } from "../records/sampler.ts";
import { chooseCheckpoints } from "./checkpoints.ts";

export interface EvalFlags {
  questions: string[];
  samples: number;
  checkpoints: string;
  scale: number;
  temperature?: number;
  topP?: number;
  topK?: number;
  minP?: number;
  maxNewTokens?: number;
  dtype: ServedDtype;
  name?: string;
  seed: number;
  judge?: string;
  dir: string;
}

/** The judge of `sample` and `eval` when none is named: the only one that needs no key and no second model. */
const DEFAULT_JUDGE = "nano-rule";

/** Decides an evaluation of finished runs from the flags of `sample` and `eval`. */
export async function planFromFlags(
  folders: readonly string[],
  flags: EvalFlags,
  library: Library,
  workspace: Workspace,
): Promise<{ planned: PlannedEval; base_model: string; judge: string }> {
  const runs = await Promise.all(folders.map(openRun));
  const [first] = runs;
  if (first === undefined) throw new DriverError("USAGE", "Expected at least one run folder");
  const staged = await stageBaseOf(first, library, workspace);
  const other = runs.find((run) => run.config.base_model.sha256 !== staged.sha256);
  if (other !== undefined)
    throw new DriverError(
      "USAGE",
      `The runs have different bases: expected ${first.config.base_model.id} for ${other.id}, got ${other.config.base_model.id}`,
    );
  const found = await library.model(first.config.source.base_model);
  const sets = await Promise.all(flags.questions.map((name) => library.questions(name)));
  const ids = sets.map((set) => set.id);
  const judge = flags.judge ?? DEFAULT_JUDGE;
  const planned = planEval(
    {
      name: flags.name ?? first.config.name,
      staged,
      served_dtype: flags.dtype,
      chat_template_kwargs: first.config.chat_template_kwargs,
      question_sets: sets,
      sampler: samplerFromFlags(flags, found.config?.max_new_tokens),
      seed: flags.seed,
      samples: flags.samples,
      judge: await loadJudge(library, judge),
      groups: undefined,
      models: [baseModel(ids, flags.samples), ...checkpointModels(runs, ids, flags)],
      control: null,
      notes: [],
    },
    workspace,
  );
  return { planned, base_model: first.config.source.base_model, judge };
}

function checkpointModels(runs: readonly PlannedRun[], question_sets: string[], flags: EvalFlags): EvalModel[] {
  return runs.flatMap((run) => {
    const name = runs.filter((other) => other.label === run.label).length > 1 ? run.id : run.label;
    const steps = chooseCheckpoints(run, flags.checkpoints);
    return steps.map((step) => {
      const label = `${name}@${step}${flags.scale === 1 ? "" : `x${flags.scale}`}`;
      // Of all checkpoints the last is the result; the others are what the curve is made of.
      const curve_only = flags.checkpoints === "all" && step !== steps.at(-1);
      return checkpointModel(
        { ...run, label: name },
        step,
        { label, question_sets, samples: flags.samples, curve_only },
        flags.scale,
      );
    });
  });
}

function samplerFromFlags(flags: EvalFlags, max_new_tokens: number | undefined): Sampler {
  const wish = {
    temperature: flags.temperature ?? SAMPLER_DEFAULTS.temperature,
    top_p: flags.topP ?? SAMPLER_DEFAULTS.top_p,
    top_k: flags.topK ?? SAMPLER_DEFAULTS.top_k,
    min_p: flags.minP ?? SAMPLER_DEFAULTS.min_p,
    max_new_tokens: flags.maxNewTokens ?? max_new_tokens ?? SAMPLER_DEFAULTS.max_new_tokens,
  };
  const parsed = Sampler.safeParse(wish);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw new DriverError("USAGE", `Bad sampler setting ${issue?.path.join(".")}: ${issue?.message}`);
}
