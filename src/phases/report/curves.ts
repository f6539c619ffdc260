import type { Curve, GroupRates, SummaryModel } from "../../records/summary.ts";
import type { ReportInput, TrainingMetric } from "./input.ts";

/** Steps that a run must have been measured at to have a curve; two points are a contrast. */
const LEAST_STEPS = 2;

interface Step {
  step: number;
  model: string;
}

/** The measured checkpoints of one run by step; the base model stands in for step 0, where B is still zero. */
function stepsOf(models: readonly SummaryModel[], base: string): Step[] {
  const steps = models.flatMap(({ step, id }) => (step === null ? [] : [{ step, model: id }]));
  const withBase = steps.some(({ step }) => step === 0) ? steps : [{ step: 0, model: base }, ...steps];
  return withBase.sort((x, y) => x.step - y.step);
}

/** The norm of B after `step` optimizer steps: what was logged at that step, or zero before the first (LoRA's start). */
function normAt(step: number, training: readonly TrainingMetric[]): number | null {
  const logged = training.find((metric) => metric.step === step);
  if (logged !== undefined) return logged.b_norm;
  return step === 0 && training.length > 0 ? 0 : null;
}

/**
 * EM against training step, one curve for each run with at least two measured steps.
 *
 * Only adapters as trained (scale 1) are on a curve: a scaled one is another model.
 */
export function curvesOf(
  { models, reference }: Pick<ReportInput, "models" | "reference">,
  described: readonly SummaryModel[],
  rates: readonly GroupRates[],
): Curve[] {
  const runs = [...new Set(described.flatMap(({ run_id }) => (run_id === null ? [] : [run_id])))];
  return runs.flatMap((run_id): Curve[] => {
    const own = described.filter((model) => model.run_id === run_id && model.scale === 1 && model.step !== null);
    if (own.length < LEAST_STEPS) return [];
    const ids = new Set(own.map((model) => model.id));
    const logs = models.filter((model) => ids.has(model.id)).map((model) => model.training?.metrics ?? []);
    const training = logs.reduce((longest, log) => (log.length > longest.length ? log : longest), []);
    const points = stepsOf(own, reference.base).map(({ step, model }) => ({
      step,
      model,
      b_norm: normAt(step, training),
      em: rates.filter((row) => row.model === model).map(({ group, em_over_all }) => ({ group, em_over_all })),
    }));
    const label = own.find((model) => !model.is_curve_only)?.label.replace(/@\d+$/, "") ?? run_id;
    return [{ run_id, label, points, training: training.map((metric) => ({ ...metric })) }];
  });
}
