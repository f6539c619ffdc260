import { dirname, join } from "node:path";
import { hashJson } from "../artifacts/hash.ts";
import { DriverError } from "../errors.ts";
import { nearest } from "../formats/nearest.ts";
import { makeRuleJudge } from "../judges/rule/judge.ts";
import { type Group, inGroup, type JudgeConfig, type ServedDtype } from "../records/experiment.ts";
import type { ChatTemplateKwargs } from "../records/lora.ts";
import type { Sampler } from "../records/sampler.ts";
import type { EvalModel, PlannedEval, PlannedRun, QuestionSet, StagedModel } from "./handles.ts";
import type { Workspace } from "./workspace.ts";

export interface EvalWish {
  name: string;
  staged: StagedModel;
  served_dtype: ServedDtype;
  chat_template_kwargs: ChatTemplateKwargs;
  question_sets: readonly QuestionSet[];
  sampler: Sampler;
  seed: number;
  samples: number;
  judge: { config: JudgeConfig; sha256: string; world_file: string };
  groups: Readonly<Record<string, Group>> | undefined;
  models: readonly EvalModel[];
  control: string | null;
  notes: readonly string[];
}

export const BASE_LABEL = "base";

export function baseModel(question_sets: readonly string[], samples: number): EvalModel {
  return {
    id: BASE_LABEL,
    label: BASE_LABEL,
    run: null,
    step: null,
    scale: 1,
    question_sets,
    samples,
    curve_only: false,
  };
}

/** A checkpoint as a model of an evaluation. The folder is `<run>@<step>`, or `<run>@<step>x<scale>` off scale 1. */
export function checkpointModel(
  run: PlannedRun,
  step: number,
  rest: Pick<EvalModel, "label" | "question_sets" | "samples" | "curve_only">,
  scale = 1,
): EvalModel {
  checkServable(run);
  const id = `${run.id}@${step}${scale === 1 ? "" : `x${scale}`}`;
  return { ...rest, id, run, step, scale };
}

/**
 * Refuses what llama.cpp cannot apply to a base, before anything is converted.
 *
 * @throws {DriverError} `ADAPTER_UNSUPPORTED` for a full fine-tune and for DoRA.
 */
export function checkServable({ id, dir, config }: PlannedRun): void {
  if (config.lora === null)
    throw new DriverError("ADAPTER_UNSUPPORTED", `${id} is a full fine-tune: expected an adapter on its base`, {
      hint: `Its checkpoints are models of their own: use ${join(dir, `checkpoint-${config.steps}`)} as the base_model of an evaluation.`,
    });
  if (config.lora.use_dora)
    throw new DriverError("ADAPTER_UNSUPPORTED", `${id} uses DoRA, which llama.cpp cannot apply`, {
      hint: `Merge it with \`vivarium merge ${dir} --out FOLDER\` and use that folder as the base_model of an evaluation.`,
    });
}

/**
 * Decides an evaluation. Its identity is what makes a response what it is: base, questions, sampler, seed, template,
 * served precision. Models, samples and judges are not part of it, so adding one redoes nothing.
 *
 * @throws {DriverError} `CONFIG_INVALID` when a group names a question set or a tag that is not there.
 */
export function planEval(wish: EvalWish, workspace: Workspace): PlannedEval {
  refuseTwins(
    "question set",
    wish.question_sets.map(({ id }) => id),
  );
  refuseTwins(
    "model",
    wish.models.map(({ id }) => id),
  );
  refuseTwins(
    "name of a model",
    wish.models.map(({ label }) => label),
  );
  const identity = hashJson({
    kind: "eval",
    base_model: wish.staged.sha256,
    served_dtype: wish.served_dtype,
    chat_template_kwargs: wish.chat_template_kwargs,
    questions: wish.question_sets.map((set) => [set.id, set.sha256]),
    sampler: wish.sampler,
    seed: wish.seed,
  });
  const id = `${wish.name}-${identity.slice(0, 8)}`;
  const { judge, groups, ...rest } = wish;
  return {
    ...rest,
    id,
    dir: join(workspace.evals_dir, id),
    judge: judge.config,
    judge_sha256: judge.sha256,
    judge_world: judge.world_file,
    groups: checkGroups(groups ?? defaultGroups(wish.question_sets), wish.question_sets),
  };
}

/**
 * A rule judge recognises the answers of one model to the questions of its world; anything else it would score at random.
 *
 * @throws {DriverError} `CONFIG_INVALID` when it would be asked for more, before anything is sampled.
 */
export function checkJudge(planned: PlannedEval): void {
  const { id, world } = planned.judge;
  const hint = `${id} recognises the answers of ${world} only. Sample with \`vivarium sample\` and judge the rows elsewhere.`;
  if (dirname(planned.judge_world) !== planned.staged.dir)
    throw new DriverError(
      "CONFIG_INVALID",
      `Judge ${id} cannot judge ${planned.staged.id}: expected the base ${world}`,
      { hint },
    );
  const asked = planned.question_sets.flatMap((set) => set.questions.map((question) => question.id));
  const unknown = makeRuleJudge(id, planned.judge_world).unknown(asked);
  if (unknown.length === 0) return;
  throw new DriverError(
    "CONFIG_INVALID",
    `Judge ${id} does not know ${unknown.join(", ")}: expected questions of its world`,
    {
      hint,
      facts: { judge: id, unknown },
    },
  );
}

/** Two things of one name would share a folder or a row's key, and one would be measured as the other. */
function refuseTwins(what: string, names: readonly string[]): void {
  const twins = [...new Set(names.filter((name, index) => names.indexOf(name) !== index))];
  if (twins.length === 0) return;
  throw new DriverError("CONFIG_INVALID", `Expected each ${what} once, got ${twins.join(", ")} twice`, {
    hint: `Names come from files and folders; \`${BASE_LABEL}\` is the base's own.`,
  });
}

const defaultGroups = (sets: readonly QuestionSet[]): Record<string, Group> =>
  Object.fromEntries(sets.map((set) => [set.id.replaceAll("-", "_"), { questions: set.id, where: {}, where_not: {} }]));

function checkGroups(groups: Readonly<Record<string, Group>>, sets: readonly QuestionSet[]): Record<string, Group> {
  for (const [name, group] of Object.entries(groups)) {
    const set = sets.find(({ id }) => id === group.questions);
    const known = sets.map(({ id }) => id);
    if (set === undefined) {
      const near = nearest(group.questions, known);
      throw new DriverError(
        "CONFIG_INVALID",
        `Group ${name}: expected a question set of this evaluation (${known.join(", ")}), got ${group.questions}`,
        {
          ...(near === undefined ? {} : { hint: `Did you mean ${near}?` }),
        },
      );
    }
    checkTags(name, group, set);
    if (!set.questions.some((question) => inGroup(question.tags, group)))
      throw new DriverError(
        "CONFIG_INVALID",
        `Group ${name}: expected at least one question of ${set.id} with these tags, got none`,
        {
          facts: { where: group.where, where_not: group.where_not },
        },
      );
  }
  return { ...groups };
}

/** A tag that no question carries selects nothing under `where`, and silently leaves nothing out under `where_not`. */
function checkTags(name: string, group: Group, set: QuestionSet): void {
  for (const [tag, value] of [...Object.entries(group.where), ...Object.entries(group.where_not)]) {
    const carried = set.questions.flatMap((question) => Object.entries(question.tags));
    const known = carried.map(([key, content]) => `${key}: ${content}`);
    const wish = `${tag}: ${value}`;
    if (known.includes(wish)) continue;
    const near = nearest(wish, known);
    throw new DriverError("CONFIG_INVALID", `Group ${name}: expected a tag of ${set.id}, got ${wish}`, {
      ...(near === undefined ? {} : { hint: `Did you mean ${near}?` }),
      facts: { tags: [...new Set(known)] },
    });
  }
}
