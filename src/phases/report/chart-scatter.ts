import type { Summary } from "../../records/summary.ts";
import type { Chart } from "./chart-parts.ts";
import { NO_DATA_TEXT } from "./format.ts";
import type { JudgedResponse, ReportInput } from "./input.ts";
import { type ChartSpec, shorten, VEGA_LITE_SCHEMA } from "./svg.ts";
import { CHART_CONFIG, CHART_WIDTH, INK, modelStyles, shownModels } from "./theme.ts";

const COLUMNS = 3;
const SPACING = 20;
const AXIS_ROOM = 52;
const SIDE = Math.floor((CHART_WIDTH - 20 - COLUMNS * AXIS_ROOM - (COLUMNS - 1) * SPACING) / COLUMNS);
const TITLE_SIZE = 12;
/** Bold text is about this much wider. */
const BOLD = 1.08;
/** Area in px^2 of the largest and the smallest circle. */
const AREAS = [10, 420];

/** Responses with both scores, counted by score rounded to whole points. */
export function countScores(rows: readonly JudgedResponse[]): { aligned: number; coherent: number; count: number }[] {
  const counts = new Map<string, { aligned: number; coherent: number; count: number }>();
  for (const { outcomes } of rows) {
    if (outcomes.aligned.kind !== "scored" || outcomes.coherent.kind !== "scored") continue;
    const [aligned, coherent] = [Math.round(outcomes.aligned.score), Math.round(outcomes.coherent.score)];
    const known = counts.get(`${aligned}/${coherent}`);
    if (known) known.count++;
    else counts.set(`${aligned}/${coherent}`, { aligned, coherent, count: 1 });
  }
  return [...counts.values()].sort((x, y) => y.count - x.count || x.aligned - y.aligned || x.coherent - y.coherent);
}

const score = (field: string, title: string | null) => ({
  field,
  type: "quantitative",
  scale: { domain: [0, 100], nice: false },
  axis: { title, values: [0, 25, 50, 75, 100], offset: 6 },
});

function panel(
  summary: Summary,
  { title, color, values, most }: { title: string; color: string; values: object[]; most: number },
  index: number,
) {
  const { aligned_below, coherent_above } = summary.em_definition;
  const x = score("coherent", "coherent");
  const y = score("aligned", index % COLUMNS === 0 ? "aligned" : null);
  const em = [{ coherent: coherent_above, coherent_end: 100, aligned: 0, aligned_end: aligned_below }];
  return {
    title: { text: shorten(title, TITLE_SIZE * BOLD, SIDE), fontSize: TITLE_SIZE, frame: "group" },
    width: SIDE,
    height: SIDE,
    layer: [
      {
        data: { values: em },
        mark: { type: "rect", fill: INK, fillOpacity: 0.06, stroke: INK, strokeOpacity: 0.5, strokeDash: [4, 3] },
        encoding: { x, y, x2: { field: "coherent_end" }, y2: { field: "aligned_end" } },
      },
      {
        data: { values },
        mark: { type: "circle", color, opacity: 0.65 },
        encoding: {
          x,
          y,
          size: {
            field: "count",
            type: "quantitative",
            scale: { domain: [1, Math.max(2, most)], range: AREAS },
            legend: null,
          },
        },
      },
      {
        data: { values: values.length > 0 ? [] : [{ coherent: 50, aligned: 50 }] },
        mark: { type: "text", fontStyle: "italic" },
        encoding: { x, y, text: { value: NO_DATA_TEXT } },
      },
    ],
  };
}

/** Alignment against coherence of every response of each shown model; the box is where EM is. */
export function scatterSpec(input: ReportInput, summary: Summary): ChartSpec {
  const styles = modelStyles(summary);
  const models = shownModels(summary).map(({ id, label }) => ({
    title: label,
    color: styles.get(id)?.color ?? INK,
    values: countScores(input.models.find((model) => model.id === id)?.rows ?? []),
  }));
  const most = Math.max(1, ...models.flatMap(({ values }) => values.map((value) => value.count)));
  return {
    $schema: VEGA_LITE_SCHEMA,
    description: "Alignment against coherence of each model's responses",
    config: CHART_CONFIG,
    padding: 8,
    columns: COLUMNS,
    spacing: SPACING,
    concat: models.map((model, index) => panel(summary, { ...model, most }, index)),
  };
}

export function scatterChart(input: ReportInput, summary: Summary): Chart {
  return {
    name: "aligned-coherent",
    caption:
      "Alignment against coherence of every response that has both scores, in all groups together. The area of a circle " +
      "grows with the number of responses at that point; the dashed box holds the EM responses.",
    spec: scatterSpec(input, summary),
  };
}
