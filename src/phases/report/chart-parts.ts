import type { Estimate, Summary } from "../../records/summary.ts";
import { type ChartSpec, shorten, textWidth, VEGA_LITE_SCHEMA } from "./svg.ts";
import { CHART_CONFIG, type ModelStyle } from "./theme.ts";

/** A chart with what its file is called and what stands below it. */
export interface Chart {
  name: string;
  caption: string;
  spec: ChartSpec;
}

export const LABEL_SIZE = 12;

/** A Vega expression that shows each label shortened to the room that labels have. */
export function shortLabels(labels: readonly string[]): string {
  const limit = CHART_CONFIG.axis.labelLimit;
  return `(${JSON.stringify(Object.fromEntries(labels.map((label) => [label, shorten(label, LABEL_SIZE, limit)])))})[datum.label]`;
}

/** Title of a panel, which starts where the labels of its axis start. */
export const panelTitle = (text: string, room: number) => ({ text, frame: "group", dx: -room });

/** A legend above the first panel, in as many columns as fit side by side. */
export function topLegend(labels: readonly string[], width: number) {
  const symbol = 34;
  const column =
    Math.max(
      0,
      ...labels.map((label) => textWidth(shorten(label, LABEL_SIZE, CHART_CONFIG.axis.labelLimit), LABEL_SIZE)),
    ) + symbol;
  const columns = Math.max(1, Math.min(labels.length, Math.floor(width / column)));
  return { title: null, orient: "top", offset: 30, columns, symbolSize: 80, labelExpr: shortLabels(labels) };
}

/** Room that the labels of a vertical axis take, in px. */
export function labelRoom(labels: readonly string[]): number {
  const limit = CHART_CONFIG.axis.labelLimit;
  return Math.ceil(Math.min(limit, Math.max(...labels.map((label) => textWidth(label, LABEL_SIZE)), 0))) + 12;
}

/** A chart of panels below each other whose plotting areas line up. */
export function stacked(description: string, panels: readonly object[]): ChartSpec {
  return {
    $schema: VEGA_LITE_SCHEMA,
    description,
    config: CHART_CONFIG,
    padding: 8,
    bounds: "flush",
    spacing: 66,
    vconcat: panels,
  };
}

/** Ends of a rate axis: each is a whole number of ticks that a reader can count in. */
const AXIS_ENDS = [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1];

/** `[0, end]` such that every interval is inside. A rate axis always starts at zero. */
export function rateDomain(estimates: readonly Estimate[]): [number, number] {
  const highest = Math.max(0, ...estimates.map((estimate) => (estimate.kind === "rate" ? estimate.ci_high : 0)));
  return [0, AXIS_ENDS.find((end) => end >= highest) ?? 1];
}

export const PERCENT_LABEL = "format(datum.value * 100, '~g') + '\u00a0%'";

/** Colour and symbol of each model, as scales of one field. */
export function modelScales(styles: readonly ModelStyle[]) {
  const domain = styles.map((style) => style.label);
  return {
    color: { domain, range: styles.map((style) => style.color) },
    shape: { domain, range: styles.map((style) => style.shape) },
  };
}

/** Numbers of an estimate as fields of a chart's row; nothing where there is no data. */
export function intervalFields(estimate: Estimate): { rate?: number; ci_low?: number; ci_high?: number } {
  if (estimate.kind === "no_data") return {};
  const { rate, ci_low, ci_high } = estimate;
  return { rate, ci_low, ci_high };
}

/** `values (8 questions)`. */
export function groupTitle({ id, question_ids }: Summary["groups"][number]): string {
  return `${id} (${question_ids.length} ${question_ids.length === 1 ? "question" : "questions"})`;
}
