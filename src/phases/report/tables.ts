import type { GroupRates, Summary } from "../../records/summary.ts";
import {
  contrastText,
  decimal,
  estimateText,
  NO_DATA_TEXT,
  percent,
  probability,
  quantity,
  reasonsText,
} from "./format.ts";
import { shownModels } from "./theme.ts";

/** A table as text cells, drawn by the page and by the Markdown alike. */
export interface Table {
  title: string;
  caption: string;
  columns: { name: string; isNumeric: boolean }[];
  rows: string[][];
}

const text = (name: string) => ({ name, isNumeric: false });
const numeric = (name: string) => ({ name, isNumeric: true });

function labels(summary: Summary): Map<string, string> {
  return new Map(summary.models.map((model) => [model.id, model.label]));
}

/** Rows of shown models only, group by group, models in report order. */
function shownRates(summary: Summary): GroupRates[] {
  const shown = new Set(shownModels(summary).map((model) => model.id));
  return summary.groups.flatMap(({ id }) => summary.rates.filter((row) => row.group === id && shown.has(row.model)));
}

function unscoredReasons({ unscored }: GroupRates): string {
  const parts = Object.entries(unscored).flatMap(([rubric, counts]) => {
    const reasons = reasonsText(counts);
    return reasons === "" ? [] : [`${rubric}: ${reasons}`];
  });
  return parts.length === 0 ? "–" : parts.join("; ");
}

export function ratesTable(summary: Summary): Table {
  const label = labels(summary);
  return {
    title: "Rates",
    caption:
      `Percent of responses that are EM, with ${100 * summary.level} % intervals for questions like these. “Of scored” ` +
      "leaves out responses without a score under either rubric, “of coherent” also the incoherent ones. The design " +
      "effect says how much the responses to one question resemble each other: n divided by it is how many independent " +
      "responses would tell as much.",
    columns: [
      text("group"),
      text("model"),
      numeric("n"),
      numeric("EM of all"),
      numeric("EM of scored"),
      numeric("EM of coherent"),
      numeric("design effect"),
    ],
    rows: shownRates(summary).map((row) => [
      row.group,
      label.get(row.model) ?? row.model,
      String(row.n),
      estimateText(row.em_over_all),
      estimateText(row.em_over_scored),
      estimateText(row.em_over_coherent),
      row.em_over_all.kind === "rate" ? row.em_over_all.design_effect.toFixed(1) : NO_DATA_TEXT,
    ]),
  };
}

/** How sound the responses are that the rates stand on. */
export function responsesTable(summary: Summary): Table {
  const label = labels(summary);
  return {
    title: "Coherence and missing scores",
    caption:
      "“Coherent” is among responses scored for coherence. “Unscored” counts responses that lack a score under at least " +
      "one rubric, with the reason under each. Truncated responses were cut off at the token limit.",
    columns: [
      text("group"),
      text("model"),
      numeric("n"),
      numeric("coherent"),
      numeric("truncated"),
      numeric("unscored"),
      text("reasons"),
    ],
    rows: shownRates(summary).map((row) => [
      row.group,
      label.get(row.model) ?? row.model,
      String(row.n),
      estimateText(row.coherent),
      row.truncated.kind === "rate" ? percent(row.truncated.rate) : NO_DATA_TEXT,
      row.n === 0 ? NO_DATA_TEXT : String(row.n - row.n_scored),
      unscoredReasons(row),
    ]),
  };
}

export function contrastsTable(summary: Summary): Table {
  const label = labels(summary);
  return {
    title: "Differences",
    caption:
      "EM of all, model minus reference, in percentage points, paired by question. p is two-sided; q is " +
      "Benjamini-Hochberg over all rows of this table. MDD is the smallest true difference that this design finds with " +
      "80 % power. The correlation is that of matched samples within a question (they share their seeds); – where one of the " +
      "two models never varies.",
    columns: [
      text("group"),
      text("model"),
      text("minus"),
      numeric("difference (points)"),
      numeric("p"),
      numeric("q"),
      numeric("questions"),
      numeric("MDD (points)"),
      numeric("sample correlation"),
    ],
    rows: summary.contrasts.map(({ model, against, group, estimate, q_value }) => [
      group,
      label.get(model) ?? model,
      label.get(against) ?? against,
      contrastText(estimate),
      ...(estimate.kind === "no_data"
        ? Array<string>(5).fill(NO_DATA_TEXT)
        : [
            probability(estimate.p_value),
            q_value === null ? NO_DATA_TEXT : probability(q_value),
            `${estimate.n_questions}${estimate.unit === "response" ? " (unit: response)" : ""}`,
            (100 * estimate.minimum_detectable_difference).toFixed(1),
            estimate.sample_correlation === null ? "–" : decimal(estimate.sample_correlation),
          ]),
    ]),
  };
}

export function sensitivityTable(summary: Summary): Table {
  const label = labels(summary);
  const rows = shownRates(summary);
  const thresholds = rows[0]?.sensitivity.map((entry) => entry.aligned_below) ?? [];
  return {
    title: "Sensitivity to the threshold",
    caption: "EM of all if a response counted as misaligned below another score for alignment.",
    columns: [text("group"), text("model"), ...thresholds.map((threshold) => numeric(`aligned < ${threshold}`))],
    rows: rows.map((row) => [
      row.group,
      label.get(row.model) ?? row.model,
      ...row.sensitivity.map((entry) => estimateText(entry.em_over_all)),
    ]),
  };
}

/** What shows that llama.cpp applied each adapter as it was trained. */
export function parityTable(summary: Summary): Table {
  return {
    title: "Parity",
    caption: "Whether the engine that sampled applies the adapter that was trained, measured before sampling.",
    columns: [text("model"), text("verdict"), text("measured")],
    rows: summary.models.map(({ label, parity, adapter_sha256 }) => [
      label,
      parity?.verdict ?? (adapter_sha256 === null ? "not needed: no adapter" : "not checked"),
      Object.entries(parity?.metrics ?? {})
        .map(([name, value]) => `${name} ${quantity(value)}`)
        .join(", "),
    ]),
  };
}

/** Enough of a sha256 to find it by; summary.json has all of it. */
const HASH_CHARACTERS = 12;

/** Where each model and its rows come from. */
export function modelsTable({ models, judge }: Summary): Table {
  return {
    title: "Models",
    caption:
      "The responses of a model are in ../<id>/responses.jsonl and what the judge said of them in " +
      `../<id>/judgements/${judge.id}-${judge.sha256.slice(0, 8)}.jsonl, seen from this report. ` +
      "Whole hashes are in summary.json.",
    columns: [
      text("model"),
      text("id"),
      numeric("responses"),
      numeric("step"),
      numeric("scale"),
      text("adapter sha256"),
      text("training"),
    ],
    rows: models.map(({ id, label, step, scale, adapter_sha256, lora, n_rows }) => [
      label,
      id,
      String(n_rows),
      step === null ? "–" : String(step),
      quantity(scale),
      adapter_sha256?.slice(0, HASH_CHARACTERS) ?? "no adapter",
      lora ?? "–",
    ]),
  };
}

/** Everything else that decides the numbers, by name. */
export function provenanceTable(summary: Summary): Table {
  const setting = (value: unknown) => (typeof value === "string" ? value : JSON.stringify(value));
  return {
    title: "Provenance",
    caption: "With the same values, the same numbers come out.",
    columns: [text("what"), text("value")],
    rows: [
      ["evaluation", summary.eval_id],
      ["base model", `${summary.base_model.id}, sha256 ${summary.base_model.sha256}`],
      ["judge", `${summary.judge.id} (${summary.judge.kind}), sha256 ${summary.judge.sha256}`],
      [
        "sampler",
        Object.entries(summary.sampler)
          .map(([name, value]) => `${name} ${setting(value)}`)
          .join(", "),
      ],
      ["samples", `${summary.samples} per question and model`],
      ["seed", String(summary.seed)],
      ...Object.entries(summary.provenance),
    ],
  };
}
