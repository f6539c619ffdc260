import { DriverError } from "../../errors.ts";
import { inGroup } from "../../records/experiment.ts";
import type { Outcome, Rubric } from "../../records/response.ts";

/** A response together with what the judge said of it. */
export interface JudgedResponse {
  key: string;
  question_set: string;
  question_id: string;
  paraphrase: number;
  sample: number;
  text: string;
  finish_reason: "stop" | "length";
  n_tokens: number;
  outcomes: Record<Rubric, Outcome>;
}

export interface TrainingMetric {
  step: number;
  /** Nats per target token. */
  loss: number | null;
  grad_norm: number | null;
  /** Null when all weights are trained. */
  b_norm: number | null;
  a_norm: number | null;
  learning_rate: number;
}

export interface ModelInput {
  /** Folder of the model's rows below the eval folder: `base`, `<run>@<step>`, `<run>@<step>x<scale>`. */
  id: string;
  label: string;
  run_id: string | null;
  step: number | null;
  /** llama.cpp's factor on the adapter; 1 is the adapter as trained. */
  scale: number;
  /** A checkpoint that is shown on the curve and nowhere else. */
  is_curve_only: boolean;
  adapter_sha256: string | null;
  parity: { verdict: string; metrics: Record<string, number> } | null;
  rows: readonly JudgedResponse[];
  training: { metrics: readonly TrainingMetric[]; lora: string | null } | null;
}

export interface QuestionInput {
  question_set: string;
  id: string;
  paraphrases: readonly string[];
  tags: Record<string, string>;
}

/** A question belongs to a group when it carries every tag of `where` and none of `where_not`. */
export interface GroupInput {
  question_set: string;
  where: Record<string, string>;
  where_not: Record<string, string>;
}

/** Everything a report is made from. The order of groups, questions and models is the order in the report. */
export interface ReportInput {
  eval_id: string;
  name: string;
  base_model: { id: string; sha256: string };
  judge: { id: string; sha256: string; kind: string };
  sampler: Record<string, unknown>;
  samples: number;
  seed: number;
  groups: Record<string, GroupInput>;
  questions: readonly QuestionInput[];
  models: readonly ModelInput[];
  reference: { base: string; control?: string };
  /** Versions and hashes by name, e.g. `vivarium`, `llama.cpp`, `revision`. */
  provenance: Record<string, string>;
  /** What a reader must know before using a number, one sentence each. */
  notes: readonly string[];
}

/** Identity of a question across question sets. */
export const questionKey = (question_set: string, id: string) => `${question_set}/${id}`;

/** Ids of the group's questions, in the order of `questions`. */
export function groupQuestions(group: GroupInput, questions: readonly QuestionInput[]): string[] {
  return questions
    .filter((question) => question.question_set === group.question_set && inGroup(question.tags, group))
    .map((question) => question.id);
}

function invalid(message: string, facts: Record<string, unknown>): never {
  throw new DriverError("DATA_INVALID", `Cannot report: ${message}`, { facts });
}

/**
 * Checks that rows, questions and models belong together.
 *
 * @throws {DriverError} `DATA_INVALID` when a reference names no model, a model or a row occurs twice (it would be
 * counted twice), or a row answers a question that is not in the list (it would be left out of every group).
 */
export function validateInput({ models, questions, reference }: ReportInput): void {
  const ids = models.map((model) => model.id);
  const twice = ids.find((id, index) => ids.indexOf(id) !== index);
  if (twice !== undefined) invalid(`expected each model once, got ${twice} twice`, { model: twice });
  for (const id of [reference.base, reference.control]) {
    if (id !== undefined && !ids.includes(id)) invalid(`expected a model ${id}, got ${ids.join(", ")}`, { model: id });
  }
  const known = new Set(questions.map((question) => questionKey(question.question_set, question.id)));
  for (const model of models) {
    const keys = new Set<string>();
    for (const { key, question_set, question_id } of model.rows) {
      const facts = { model: model.id, key };
      if (keys.has(key)) invalid(`expected each row of ${model.id} once, got ${key} twice`, facts);
      if (!known.has(questionKey(question_set, question_id))) {
        invalid(`expected rows of known questions, got ${key} of ${model.id}`, facts);
      }
      keys.add(key);
    }
  }
}
