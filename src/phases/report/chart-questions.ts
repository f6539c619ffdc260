import type { Summary } from "../../records/summary.ts";
import {
  type Chart,
  groupTitle,
  intervalFields,
  labelRoom,
  modelScales,
  PERCENT_LABEL,
  rateDomain,
  stacked,
} from "./chart-parts.ts";
import type { ChartSpec } from "./svg.ts";
import { CHART_WIDTH, type ModelStyle, modelStyles, shownModels } from "./theme.ts";

/** Up to this many questions each model has a lane of its own; beyond it all share one line, or no page could hold it. */
const MOST_WITH_LANES = 32;
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

function questionPanel(
  title: string,
  ids: string[],
  values: object[],
  position: "first" | "last" | "only" | "inner",
  layout: Layout,
) {
  const { styles, domain, room, lanes } = layout;
  const scales = modelScales(styles);
  const legend =
    position === "first" || position === "only" ? { title: null, orient: "top", offset: 26, symbolSize: 80 } : null;
  const isLast = position === "last" || position === "only";
  const x = {
    type: "quantitative",
    scale: { domain, nice: false },
    axis: { title: isLast ? "EM responses among all" : null, labelExpr: PERCENT_LABEL, tickCount: 6, titlePadding: 10 },
  };
  const y = {
    field: "question",
    type: "nominal",
    sort: null,
    scale: { domain: ids, paddingInner: 0.15, paddingOuter: 0.1 },
    axis: { title: null, minExtent: room, ticks: false, grid: true, tickBand: "extent", labelPadding: 10 },
  };
  const field = { field: "model", type: "nominal" };
  const yOffset = { ...field, sort: null, scale: { domain: styles.map((style) => style.label) } };
  return {
    title,
    width: CHART_WIDTH - room - 30,
    height: {
      step: lanes ? Math.max(LEAST_ROW_HEIGHT, LANE_HEIGHT * styles.length + 6) : LEAST_ROW_HEIGHT,
      for: "position",
    },
    data: { values },
    encoding: { y, ...(lanes ? { yOffset } : {}), color: { ...field, scale: scales.color, legend } },
    layer: [
      {
        mark: { type: "rule", strokeWidth: 1.5, opacity: 0.55 },
        encoding: { x: { ...x, field: "ci_low" }, x2: { field: "ci_high" } },
      },
      {
        mark: { type: "point", filled: true, size: 45, opacity: 1 },
        encoding: { x: { ...x, field: "rate" }, shape: { ...field, scale: scales.shape, legend } },
      },
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
    lanes: all.length <= MOST_WITH_LANES,
  };
  const specs = panels.map(({ group, ids }, index) => {
    const first = index === 0;
    const last = index === panels.length - 1;
    const position = first && last ? "only" : first ? "first" : last ? "last" : "inner";
    return questionPanel(groupTitle(group), ids, valuesOf(summary, group.question_set, ids), position, layout);
  });
  return stacked("EM rate per question and model, with intervals", specs);
}

export function questionsChart(summary: Summary): Chart {
  return {
    name: "em-questions",
    caption:
      `The same rate question by question, with ${100 * summary.level} % Wilson intervals, in which the responses to one ` +
      "question are the unit. A question that belongs to several groups is shown in the first.",
    spec: questionsSpec(summary),
  };
}
