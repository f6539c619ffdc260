import type { Summary, SummaryContrast, SummaryModel } from "../../records/summary.ts";
import { pairedContrast } from "../../stats/contrasts.ts";
import { benjaminiHochberg } from "../../stats/multiple.ts";
import { DEFAULT_LEVEL } from "../../stats/rates.ts";
import { curvesOf } from "./curves.ts";
import {
  groupQuestions,
  type JudgedResponse,
  type ModelInput,
  questionKey,
  type ReportInput,
  validateInput,
} from "./input.ts";
import { byQuestion, COHERENT_ABOVE, EM_ALIGNED_BELOW, pairedQuestions, ratesOf, sensitivityOf } from "./rates.ts";

type Group = Summary["groups"][number];

function describeModel(model: ModelInput, { models, reference }: ReportInput): SummaryModel {
  const isShared = models.filter(({ label }) => label === model.label).length > 1;
  const isReference = model.id === reference.base ? "base" : model.id === reference.control ? "control" : "organism";
  return {
    id: model.id,
    label: isShared ? `${model.label} (${model.id})` : model.label,
    role: isReference,
    run_id: model.run_id,
    step: model.step,
    scale: model.scale,
    is_curve_only: model.is_curve_only,
    adapter_sha256: model.adapter_sha256,
    lora: model.training?.lora ?? null,
    n_rows: model.rows.length,
    parity: model.parity,
  };
}

function describeGroups({ groups, questions }: ReportInput): Group[] {
  return Object.entries(groups).map(([id, group]) => ({
    id,
    question_set: group.question_set,
    where: group.where,
    where_not: group.where_not,
    question_ids: groupQuestions(group, questions),
  }));
}

function rowsIn(group: Group, { rows }: ModelInput): JudgedResponse[] {
  const members = new Set(group.question_ids);
  return rows.filter((row) => row.question_set === group.question_set && members.has(row.question_id));
}

/** Which models are compared: every shown model with the base, and every organism with the control. */
function comparisons({ models, reference }: ReportInput): [ModelInput, ModelInput][] {
  const shown = models.filter((model) => !model.is_curve_only);
  return [reference.base, reference.control].flatMap((id) => {
    const against = models.find((model) => model.id === id);
    if (against === undefined) return [];
    const skipped = [reference.base, ...(id === reference.control ? [reference.control] : [])];
    return shown
      .filter((model) => !skipped.includes(model.id))
      .map((model): [ModelInput, ModelInput] => [model, against]);
  });
}

function contrastsOf(input: ReportInput, groups: readonly Group[], level: number): SummaryContrast[] {
  const contrasts = groups.flatMap((group) =>
    comparisons(input).map(([model, against]) => {
      const [a, b] = [pairedQuestions(rowsIn(group, model)), pairedQuestions(rowsIn(group, against))];
      const estimate = pairedContrast(a, b, level);
      return { model: model.id, against: against.id, group: group.id, estimate };
    }),
  );
  const adjusted = benjaminiHochberg(
    contrasts.flatMap(({ estimate }) => (estimate.kind === "contrast" ? [estimate.p_value] : [])),
  )[Symbol.iterator]();
  return contrasts.map((contrast) => ({
    ...contrast,
    q_value: contrast.estimate.kind === "contrast" ? (adjusted.next().value ?? null) : null,
  }));
}

function questionRatesOf({ models, questions }: ReportInput, level: number): Summary["question_rates"] {
  return models
    .filter((model) => !model.is_curve_only)
    .flatMap((model) => {
      const own = byQuestion(model.rows);
      return questions.map(({ question_set, id }) => ({
        model: model.id,
        question_set,
        question_id: id,
        ...ratesOf(own.get(questionKey(question_set, id)) ?? [], level),
      }));
    });
}

/**
 * Every number of a report, from judged rows alone. Pure: the same input gives the same summary.
 *
 * A model without rows in a group has "no data" there. Curve-only models have rates per group, and nothing else.
 *
 * @throws {DriverError} `DATA_INVALID`, see {@link validateInput}
 */
export function buildSummary(input: ReportInput): Summary {
  validateInput(input);
  const level = DEFAULT_LEVEL;
  const groups = describeGroups(input);
  const models = input.models.map((model) => describeModel(model, input));
  const rates = input.models.flatMap((model) =>
    groups.map((group) => {
      const rows = rowsIn(group, model);
      return { model: model.id, group: group.id, ...ratesOf(rows, level), sensitivity: sensitivityOf(rows, level) };
    }),
  );
  return {
    schema_version: 1,
    eval_id: input.eval_id,
    name: input.name,
    level,
    em_definition: { aligned_below: EM_ALIGNED_BELOW, coherent_above: COHERENT_ABOVE },
    base_model: input.base_model,
    judge: input.judge,
    sampler: input.sampler,
    samples: input.samples,
    seed: input.seed,
    reference: { base: input.reference.base, control: input.reference.control ?? null },
    groups,
    models,
    rates,
    question_rates: questionRatesOf(input, level),
    contrasts: contrastsOf(input, groups, level),
    curves: curvesOf(input, models, rates),
    provenance: input.provenance,
    notes: [...input.notes],
  };
}
