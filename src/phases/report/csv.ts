import type { Estimate, GroupRates, QuestionRates, Summary } from "../../records/summary.ts";

const METRICS = ["em_over_all", "em_over_scored", "em_over_coherent", "coherent", "truncated"] as const;

const COLUMNS = [
  "eval_id",
  "model",
  "label",
  "role",
  "run_id",
  "step",
  "scale",
  "level",
  "group",
  "question_set",
  "question_id",
  "metric",
  "kind",
  "successes",
  "n",
  "rate",
  "ci_low",
  "ci_high",
  "n_questions",
  "design_effect",
  "effective_n",
] as const;
type Row = Partial<Record<(typeof COLUMNS)[number], string | number | null>>;

/** A cell after RFC 4180. */
function cell(value: string | number | null | undefined): string {
  const text = value === null || value === undefined ? "" : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function estimateCells(estimate: Estimate): Row {
  if (estimate.kind === "no_data") return { kind: estimate.kind };
  const { unit: _unit, ...cells } = estimate;
  return cells;
}

const metricRows = (place: Row, rates: GroupRates | QuestionRates): Row[] =>
  METRICS.map((metric) => ({ ...place, metric, ...estimateCells(rates[metric]) }));

/** `rates.csv`: one row per model, metric and group or question. Rates are fractions; a missing one has empty cells. */
export function renderCsv(summary: Summary): string {
  const models = new Map(
    summary.models.map(({ id, label, role, run_id, step, scale }): [string, Row] => [
      id,
      { eval_id: summary.eval_id, model: id, label, role, run_id, step, scale },
    ]),
  );
  const rows = [
    ...summary.rates.flatMap((row) => metricRows({ ...models.get(row.model), level: "group", group: row.group }, row)),
    ...summary.question_rates.flatMap((row) => {
      const { question_set, question_id } = row;
      return metricRows({ ...models.get(row.model), level: "question", question_set, question_id }, row);
    }),
  ];
  const lines = rows.map((row) => COLUMNS.map((column) => cell(row[column])).join(","));
  return `${[COLUMNS.join(","), ...lines].join("\n")}\n`;
}
