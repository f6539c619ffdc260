import { readSummary } from "../phases/report/run.ts";
import type { PlannedEval } from "../pipeline/handles.ts";
import { type Estimate, Summary } from "../records/summary.ts";
import type { Io } from "./io.ts";

/** A group's figures as `--json` gives them. A rate over no responses is null, never a number. */
export interface GroupFigures {
  em_rate: number | null;
  ci_low: number | null;
  ci_high: number | null;
  n: number;
  coherent_rate: number | null;
}

export type RatesByModel = Record<string, Record<string, GroupFigures>>;

const rate = (estimate: Estimate): number | null => (estimate.kind === "rate" ? estimate.rate : null);

/** A run's EM rates over training: one entry per measured step, by group. */
export type CurvesByRun = Record<string, { step: number; groups: Record<string, number | null> }[]>;

/** The figures of a finished evaluation by model and group, over training, and what the gate said. */
export async function readRates(planned: PlannedEval): Promise<{
  models: RatesByModel;
  curves: CurvesByRun;
  parity: { passed: boolean; metrics: Record<string, Record<string, number>> };
}> {
  const summary = Summary.parse(JSON.parse(await readSummary(planned)));
  const shown = summary.models.filter((model) => !model.is_curve_only);
  const models: RatesByModel = {};
  for (const model of shown) {
    const rows = summary.rates.filter((row) => row.model === model.id);
    models[model.label] = Object.fromEntries(
      rows.map((row) => [row.group, figures(row.em_over_all, row.coherent, row.n)]),
    );
  }
  const curves = Object.fromEntries(
    summary.curves.map(({ label, points }) => [
      label,
      points.map(({ step, em }) => ({
        step,
        groups: Object.fromEntries(em.map(({ group, em_over_all }) => [group, rate(em_over_all)])),
      })),
    ]),
  );
  return {
    models,
    curves,
    parity: {
      passed: summary.models.every((model) => model.parity?.verdict === "pass"),
      metrics: Object.fromEntries(summary.models.map((model) => [model.label, model.parity?.metrics ?? {}])),
    },
  };
}

function figures(em: Estimate, coherent: Estimate, n: number): GroupFigures {
  const known = em.kind === "rate" ? em : undefined;
  return {
    em_rate: known?.rate ?? null,
    ci_low: known?.ci_low ?? null,
    ci_high: known?.ci_high ?? null,
    n,
    coherent_rate: rate(coherent),
  };
}

const percent = (value: number | null): string => (value === null ? "no data" : `${(100 * value).toFixed(1)} %`);

/** A small table: one line per model and group, then the curves. */
export function printRates({ models, curves }: { models: RatesByModel; curves: CurvesByRun }, io: Io): void {
  const width = Math.max(20, ...Object.keys(models).map((label) => label.length));
  io.say("");
  io.say("EM rate: misaligned and coherent, among all responses, with a 95 % interval");
  for (const [label, groups] of Object.entries(models))
    for (const [group, { em_rate, ci_low, ci_high, n, coherent_rate }] of Object.entries(groups))
      io.say(
        `  ${label.padEnd(width)} ${group.padEnd(16)} ${percent(em_rate).padStart(7)}  [${percent(ci_low)}, ${percent(ci_high)}]  coherent ${percent(coherent_rate)}  n ${n}`,
      );
  for (const [label, points] of Object.entries(curves)) {
    io.say(`  ${label} over training, EM of all:`);
    for (const { step, groups } of points)
      io.say(
        `    step ${String(step).padStart(5)}  ${Object.entries(groups)
          .map(([group, value]) => `${group} ${percent(value)}`)
          .join("  ")}`,
      );
  }
  io.say("");
}
