import type { Curve, Summary } from "../../records/summary.ts";
import {
  type Chart,
  groupTitle,
  intervalFields,
  PERCENT_LABEL,
  panelTitle,
  rateDomain,
  stacked,
  topLegend,
} from "./chart-parts.ts";
import type { ChartSpec } from "./svg.ts";
import { CHART_WIDTH, modelStyles, spareColor } from "./theme.ts";

const AXIS_ROOM = 58;
const PANEL_WIDTH = CHART_WIDTH - AXIS_ROOM - 50;
const PANEL_HEIGHT = 170;
const NORM_HEIGHT = 120;

interface Layout {
  color: { domain: string[]; range: string[] };
  steps: [number, number];
  domain: [number, number];
}

/** Each run in the colour of its own model in the other charts. */
function colorScale(summary: Summary): Layout["color"] {
  const styles = modelStyles(summary);
  const used = new Set([...styles.values()].map((style) => style.color));
  const range = summary.curves.map(({ run_id }) => {
    const shown = summary.models.find((model) => model.run_id === run_id && !model.is_curve_only);
    const color = (shown && styles.get(shown.id)?.color) ?? spareColor(used);
    used.add(color);
    return color;
  });
  return { domain: summary.curves.map((curve) => curve.label), range };
}

const stepAxis = (layout: Layout, isLast: boolean) => ({
  field: "step",
  type: "quantitative",
  scale: { domain: layout.steps, nice: false, padding: 12 },
  axis: { title: isLast ? "optimizer step" : null, grid: false, tickMinStep: 1, tickCount: 10, titlePadding: 10 },
});

/** One field, one scale and one legend, which all panels share. */
const run = (layout: Layout) => ({
  field: "run",
  type: "nominal",
  scale: layout.color,
  legend: { ...topLegend(layout.color.domain, PANEL_WIDTH), symbolType: "circle", symbolStrokeWidth: 0 },
});

function emPanel(group: Summary["groups"][number], curves: readonly Curve[], layout: Layout, isLast: boolean) {
  const values = curves.flatMap(({ label, points }) =>
    points.flatMap(({ step, em }) =>
      em
        .filter((row) => row.group === group.id && row.em_over_all.kind === "rate")
        .map((row) => ({ run: label, step, ...intervalFields(row.em_over_all) })),
    ),
  );
  const y = {
    type: "quantitative",
    scale: { domain: layout.domain, nice: false },
    axis: { title: "EM among all", labelExpr: PERCENT_LABEL, tickCount: 5, minExtent: AXIS_ROOM, maxExtent: AXIS_ROOM },
  };
  return {
    title: panelTitle(groupTitle(group), AXIS_ROOM),
    width: PANEL_WIDTH,
    height: PANEL_HEIGHT,
    data: { values },
    encoding: { x: stepAxis(layout, isLast), color: run(layout) },
    layer: [
      {
        mark: { type: "area", opacity: 0.12, line: false },
        encoding: { y: { ...y, field: "ci_low" }, y2: { field: "ci_high" } },
      },
      {
        mark: { type: "rule", opacity: 0.6, strokeWidth: 1.5 },
        encoding: { y: { ...y, field: "ci_low" }, y2: { field: "ci_high" } },
      },
      { mark: { type: "line", strokeWidth: 2 }, encoding: { y: { ...y, field: "rate" } } },
      { mark: { type: "point", filled: true, size: 50, opacity: 1 }, encoding: { y: { ...y, field: "rate" } } },
    ],
  };
}

function normPanel(curves: readonly Curve[], layout: Layout) {
  const lines = curves.flatMap(({ label, points, training }) => {
    const logged = new Set(training.map((row) => row.step));
    const beside = points.filter((point) => point.b_norm !== null && !logged.has(point.step));
    return [...beside, ...training].map(({ step, b_norm }) => ({ run: label, step, b_norm }));
  });
  const measured = curves.flatMap(({ label, points }) =>
    points.flatMap(({ step, b_norm }) => (b_norm === null ? [] : [{ run: label, step, b_norm }])),
  );
  const y = {
    field: "b_norm",
    type: "quantitative",
    scale: { zero: true },
    axis: { title: "norm of B", tickCount: 4, minExtent: AXIS_ROOM, maxExtent: AXIS_ROOM },
  };
  return {
    title: panelTitle("Size of the adapter", AXIS_ROOM),
    width: PANEL_WIDTH,
    height: NORM_HEIGHT,
    encoding: { x: stepAxis(layout, true), y, color: run(layout) },
    layer: [
      { data: { values: lines }, mark: { type: "line", strokeWidth: 2 } },
      { data: { values: measured }, mark: { type: "point", filled: true, size: 50, opacity: 1 } },
    ],
  };
}

/** The rates of a curve in one group, where there are any: a group with one of them is no curve. */
const measuredIn = ({ points }: Curve, group: string) =>
  points
    .flatMap(({ em }) => em)
    .filter((row) => row.group === group && row.em_over_all.kind === "rate")
    .map((row) => row.em_over_all);

/** EM against optimizer step for each run, above the norm of B on the same axis of steps. */
export function curveSpec(summary: Summary): ChartSpec {
  const { curves } = summary;
  const groups = summary.groups.filter(({ id }) => curves.some((curve) => measuredIn(curve, id).length > 1));
  const measured = groups.flatMap(({ id }) => curves.flatMap((curve) => measuredIn(curve, id)));
  const steps = curves.flatMap(({ points, training }) => [...points, ...training].map((row) => row.step));
  const layout: Layout = {
    color: colorScale(summary),
    steps: [0, Math.max(1, ...steps)],
    domain: rateDomain(measured),
  };
  const hasNorms = curves.some((curve) => curve.training.length > 0);
  const panels: object[] = groups.map((group, index) =>
    emPanel(group, curves, layout, !hasNorms && index === groups.length - 1),
  );
  return stacked(
    "EM rate and norm of B against training step",
    hasNorms ? [...panels, normPanel(curves, layout)] : panels,
  );
}

export function curveChart(summary: Summary): Chart {
  return {
    name: "em-curve",
    caption:
      `EM rate along training, with ${100 * summary.level} % intervals over questions, and the Frobenius norm of the ` +
      "adapter's B at the same steps. Step 0 is the base model where no checkpoint of step 0 was measured.",
    spec: curveSpec(summary),
  };
}
