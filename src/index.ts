/** Public API: what a program that drives vivarium may rely on. */
export { DriverError, ERROR_CODES, type ErrorCode, type Fault } from "./errors.ts";
export { executePlan, orderUnits, type ExecuteOptions, type ExecuteResult, type PipelineEvent } from "./pipeline/execute.ts";
export { planExperiment, type PlannedExperiment } from "./pipeline/plan-experiment.ts";
export { Library } from "./pipeline/library.ts";
export type { Workspace } from "./pipeline/workspace.ts";
export { Experiment } from "./records/experiment.ts";
export { Judgement, Response } from "./records/response.ts";
export { Summary } from "./records/summary.ts";
