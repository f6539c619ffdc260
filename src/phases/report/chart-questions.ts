import type { Summary } from "../../records/summary.ts";
import {
  type Chart,
  groupTitle,
  intervalFields,
  labelRoom,
  modelScales,
  PERCENT_LABEL,
  panelTitle,
  rateDomain,
  shortLabels,
  stacked,
  topLegend,
} from "./chart-parts.ts";
import { NO_DATA_TEXT } from "./format.ts";
import type { ChartSpec } from "./svg.ts";
import { CHART_WIDTH, type ModelStyle, modelStyles, shownModels } from "./theme.ts";

/** Up to this many lanes each model has one in each question; beyond it all share a line, or no page could hold them. */
const MOST_LANES = 240;
const LANE_HEIGHT = 9;
const LEAST_ROW_HEIGHT = 18;

type Group = Summary["groups"][number];

/** Questions of the group that no group before it shows. */
function ownQuestions(groups: readonly Group[], index: number): string[] {
  const group = groups[index];
  if (group === undefined) return [];
  const before = groups.slice(0, index).filter((other) => other.question_set === group.question_set);
  return group.question_ids.filter((id) => !before.some((other) => other.question_ids.includes(id)));
}

function valuesOf(summary: Summary, question_set: string, ids: readonly string[]) {
  return shownModels(summary).flatMap(({ id: model, label }) => {
    const own = summary.question_rates.filter((row) => row.model === model && row.question_set === question_set);
    return ids.flatMap((id) =>
      own
        .filter((row) => row.question_id === id && row.em_over_all.kind === "rate")
        .map((row) => ({ question: id, model: label, ...intervalFields(row.em_over_all) })),
    );
  });
}

interface Layout {
  styles: ModelStyle[];
  domain: [number, number];
  room: number;
  lanes: boolean;
}

interface Panel {
  title: string;
  ids: string[];
  values: { question: string }[];
  isLast: boolean;
}

const questionAxis = (ids: readonly string[], room: number) => ({
  field: "question",
  type: "nominal",
  sort: null,
  scale: { domain: ids, paddingInner: 0.15, paddingOuter: 0.075 },
  axis: {
    title: null,
    labelExpr: shortLabels(ids),
    minExtent: room,
    domain: false,
    ticks: false,
    grid: true,
    tickBand: "extent",
    labelPadding: 10,
  },
});

/** Questions that no shown model answered say so; the gap of one model among others is a lane without a symbol. */
function unanswered({ ids, values }: Panel, x: object) {
  const answered = new Set(values.map((value) => value.question));
  return {
    data: { values: ids.filter((id) => !answered.has(id)).map((question) => ({ question, rate: 0 })) },
    mark: { type: "text", align: "left", dx: 6, fontStyle: "italic" },
    encoding: { x: { ...x, field: "rate" }, text: { value: NO_DATA_TEXT } },
  };
}

function questionPanel(panel: Panel, { styles, domain, room, lanes }: Layout) {
  const labels = styles.map((style) => style.label);
  const width = CHART_WIDTH - room - 30;
  const scales = modelScales(styles);
  const legend = topLegend(labels, width);
  const title = panel.isLast ? "EM responses among all" : null;
  const x = {
    type: "quantitative",
    scale: { domain, nice: false },
    axis: { title, labelExpr: PERCENT_LABEL, tickCount: 6, titlePadding: 10 },
  };
  const field = { field: "model", type: "nominal" };
  const color = { ...field, scale: scales.color, legend };
  const yOffset = lanes ? { yOffset: { ...field, sort: null, scale: { domain: labels } } } : {};
  const step = lanes ? Math.max(LEAST_ROW_HEIGHT, LANE_HEIGHT * styles.length + 6) : LEAST_ROW_HEIGHT;
  return {
    title: panelTitle(panel.title, room),
    width,
    height: { step, for: "position" },
    data: { values: panel.values },
    encoding: { y: questionAxis(panel.ids, room) },
    layer: [
      {
        mark: { type: "rule", strokeWidth: 1.5, opacity: lanes ? 0.65 : 0.35 },
        encoding: { ...yOffset, color, x: { ...x, field: "ci_low" }, x2: { field: "ci_high" } },
      },
      {
        mark: { type: "point", filled: true, size: 45, opacity: 1 },
        encoding: { ...yOffset, color, x: { ...x, field: "rate" }, shape: { ...field, scale: scales.shape, legend } },
      },
      unanswered(panel, x),
    ],
  };
}

/** EM rate of each model on each question, with Wilson intervals, one panel a group. */
export function questionsSpec(summary: Summary): ChartSpec {
  const panels = summary.groups
    .map((group, index) => ({ group, ids: ownQuestions(summary.groups, index) }))
    .filter(({ ids }) => ids.length > 0);
  const all = panels.flatMap(({ ids }) => ids);
  const layout: Layout = {
    styles: [...modelStyles(summary).values()],
    domain: rateDomain(summary.question_rates.map((row) => row.em_over_all)),
    room: labelRoom(all),
    lanes: all.length * shownModels(summary).length <= MOST_LANES,
  };
  const specs = panels.map(({ group, ids }, index) => {
    const values = valuesOf(summary, group.question_set, ids);
    const isLast = index === panels.length - 1;
    return questionPanel({ title: groupTitle(group), ids, values, isLast }, layout);
  });
  return stacked("EM rate per question and model, with intervals", specs);
}

export function questionsChart(summary: Summary): Chart {
  return {
    name: "em-questions",
    caption:
      `The same rate question by question, with ${100 * summary.level} % Wilson intervals, in which the responses to one ` +
      "question are the unit. A question that belongs to several groups is shown in the first; a missing symbol is missing " +
      "data, not zero.",
    spec: questionsSpec(summary),
  };
}
