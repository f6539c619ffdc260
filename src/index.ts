/** Public API: what a program that drives vivarium may rely on. */
export { DriverError, ERROR_CODES, type ErrorCode, type Fault } from "./errors.ts";
export {
  type ExecuteOptions,
  type ExecuteResult,
  executePlan,
  orderUnits,
  type PipelineEvent,
} from "./pipeline/execute.ts";
export { Library } from "./pipeline/library.ts";
export { type PlannedExperiment, planExperiment } from "./pipeline/plan-experiment.ts";
export type { Workspace } from "./pipeline/workspace.ts";
export { Experiment } from "./records/experiment.ts";
export { Judgement, Response } from "./records/response.ts";
export { Summary } from "./records/summary.ts";
