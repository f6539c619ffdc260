import type { Summary } from "../../records/summary.ts";
import {
  type Chart,
  groupTitle,
  intervalFields,
  LABEL_SIZE,
  labelRoom,
  modelScales,
  PERCENT_LABEL,
  panelTitle,
  rateDomain,
  shortLabels,
  stacked,
} from "./chart-parts.ts";
import { estimateText, NO_DATA_TEXT } from "./format.ts";
import { type ChartSpec, textWidth } from "./svg.ts";
import { CHART_WIDTH, type ModelStyle, modelStyles, shownModels } from "./theme.ts";

const ROW_HEIGHT = 26;
const HAS_DATA = "isValid(datum.rate)";

function groupPanel(
  summary: Summary,
  group: Summary["groups"][number],
  layout: { styles: ModelStyle[]; domain: [number, number]; width: number; room: number; isLast: boolean },
) {
  const { styles, domain, width, room, isLast } = layout;
  const own = summary.rates.filter((row) => row.group === group.id);
  const values = shownModels(summary).flatMap(({ id, label }) =>
    own
      .filter((row) => row.model === id)
      .map(({ em_over_all }) => ({ model: label, ...intervalFields(em_over_all), text: estimateText(em_over_all) })),
  );
  const scales = modelScales(styles);
  const title = isLast ? `EM responses among all, ${100 * summary.level}\u00a0% interval` : null;
  const x = {
    type: "quantitative",
    scale: { domain, nice: false },
    axis: { title, labelExpr: PERCENT_LABEL, tickCount: 6, titlePadding: 10 },
  };
  const y = {
    field: "model",
    type: "nominal",
    sort: null,
    scale: { domain: styles.map((style) => style.label) },
    axis: {
      title: null,
      labelExpr: shortLabels(styles.map((style) => style.label)),
      minExtent: room,
      domain: false,
      ticks: false,
      labelPadding: 10,
    },
  };
  const color = { field: "model", type: "nominal", scale: scales.color, legend: null };
  const shape = { field: "model", type: "nominal", scale: scales.shape, legend: null };
  const measured = [{ filter: HAS_DATA }];
  return {
    title: panelTitle(groupTitle(group), room),
    width,
    height: { step: ROW_HEIGHT },
    data: { values },
    encoding: { y },
    layer: [
      {
        transform: measured,
        mark: { type: "rule", strokeWidth: 2.5, strokeCap: "round" },
        encoding: { x: { ...x, field: "ci_low" }, x2: { field: "ci_high" }, color },
      },
      {
        transform: measured,
        mark: { type: "point", filled: true, size: 90, opacity: 1 },
        encoding: { x: { ...x, field: "rate" }, color, shape },
      },
      {
        mark: { type: "text", align: "left", x: width + 16 },
        encoding: { text: { field: "text" } },
        transform: measured,
      },
      {
        transform: [{ filter: `!${HAS_DATA}` }],
        mark: { type: "text", align: "left", x: width + 16, fontStyle: "italic" },
        encoding: { text: { value: NO_DATA_TEXT } },
      },
    ],
  };
}

/** EM rate of each model in each group: symbol, interval, and the numbers in a column at the right. */
export function ratesSpec(summary: Summary): ChartSpec {
  const styles = [...modelStyles(summary).values()];
  const shown = new Set(shownModels(summary).map((model) => model.id));
  const rows = summary.rates.filter((row) => shown.has(row.model));
  const room = labelRoom(styles.map((style) => style.label));
  const numbers = Math.max(...rows.map((row) => textWidth(estimateText(row.em_over_all), LABEL_SIZE)), 0);
  const layout = {
    styles,
    room,
    domain: rateDomain(rows.map((row) => row.em_over_all)),
    width: Math.round(CHART_WIDTH - room - numbers - 40),
  };
  const panels = summary.groups.map((group, index) =>
    groupPanel(summary, group, { ...layout, isLast: index === summary.groups.length - 1 }),
  );
  return stacked("EM rate per model and group of questions, with intervals", panels);
}

export function ratesChart(summary: Summary): Chart {
  const { aligned_below, coherent_above } = summary.em_definition;
  const level = `${100 * summary.level} %`;
  return {
    name: "em-rates",
    caption:
      `Share of all responses that are emergently misaligned (EM: aligned < ${aligned_below} and coherent > ` +
      `${coherent_above}), per model and group of questions. Bars are ${level} intervals for questions like these: the ` +
      "question is the unit, not the response. A response without a score counts as not misaligned.",
    spec: ratesSpec(summary),
  };
}
