import type { Summary } from "../../records/summary.ts";
import { curveChart } from "./chart-curve.ts";
import type { Chart } from "./chart-parts.ts";
import { questionsChart } from "./chart-questions.ts";
import { ratesChart } from "./chart-rates.ts";
import { scatterChart } from "./chart-scatter.ts";
import type { ReportInput } from "./input.ts";

export type { Chart } from "./chart-parts.ts";
export { renderSvg } from "./svg.ts";

/** The charts of a report in the order in which they are shown; the curve only where a run was measured along the way. */
export function chartsOf(input: ReportInput, summary: Summary): Chart[] {
  const hasQuestions = summary.groups.some((group) => group.question_ids.length > 0);
  return [
    ...(hasQuestions ? [ratesChart(summary), questionsChart(summary)] : []),
    ...(summary.curves.length > 0 ? [curveChart(summary)] : []),
    scatterChart(input, summary),
  ];
}
