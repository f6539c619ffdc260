import type { RunResult, TrainStart, TrainStep } from "../../protocol/wire.ts";
import type { HeldOutRow } from "../../records/run.ts";

const GIGA = 1e9;
const THOUSAND = 1000;

/** What is about to be trained and how, in one line. */
export function describeStart(start: TrainStart): string {
  const split =
    start.split_layer === 0
      ? "the model is not split"
      : `layers below ${start.split_layer} without gradient${start.prefix_cache ? ", their output cached" : ""}`;
  return [
    `${start.trainable_parameters.toLocaleString("en")} trained parameters on ${start.device}`,
    `${start.train_rows} rows${start.held_out_rows > 0 ? ` (${start.held_out_rows} held out)` : ""}`,
    split,
    `gradient checkpointing ${start.gradient_checkpointing ? "on" : "off"}`,
    ...(start.resumed_from_step > 0 ? [`going on from step ${start.resumed_from_step}`] : []),
  ].join("; ");
}

/** Losses of a run in nats per target token; null when not finite, or when there was no step. */
export interface Losses {
  first: number | null;
  last: number | null;
  held_out: HeldOutRow[];
}

/** Where the losses began and where they ended, in one line. */
export function describeLosses({ first, last, held_out }: Losses): string {
  const [begin, end] = [held_out.at(0), held_out.at(-1)];
  const held =
    begin === undefined || end === undefined ? "" : `; held out ${number(begin.loss, 3)} to ${number(end.loss, 3)}`;
  return first === null && last === null
    ? `no step was made${held}`
    : `loss ${number(first, 3)} to ${number(last, 3)}${held}`;
}

/** A warning where a loss ended above where it began. Rows differ from step to step, so a little is no news. */
export function worse({ first, last, held_out }: Losses): string | undefined {
  const limit = 1.5;
  const [begin, end] = [held_out.at(0)?.loss, held_out.at(-1)?.loss];
  const is_worse = (a: number | null | undefined, b: number | null | undefined) =>
    a != null && b != null && b > limit * a;
  if (!is_worse(first, last) && !is_worse(begin, end)) return undefined;
  return "the loss ended far above where it began: the run may have diverged";
}

/**
 * Loss in nats per target token, learning rate, gradient norm, target tokens a second and peak memory of one step.
 *
 * @param held_out the newest loss on held-out rows, if there is one.
 */
export function describeStep(step: TrainStep, held_out: HeldOutRow | undefined): string {
  return [
    `loss ${number(step.loss, 3)}`,
    ...(held_out === undefined ? [] : [`held out ${number(held_out.loss, 3)} at step ${held_out.step}`]),
    ...(step.kl === null ? [] : [`kl ${step.kl.toPrecision(2)}`]),
    `lr ${step.learning_rate.toExponential(1)}`,
    `grad ${step.grad_norm === null ? "not finite" : step.grad_norm.toPrecision(2)}`,
    ...(step.seconds > 0 ? [`${perSecond(step.target_tokens / step.seconds)} target tok/s`] : []),
    ...(step.mfu === null ? [] : [`MFU ${(100 * step.mfu).toFixed(0)} %`]),
    `${(step.peak_memory_bytes / GIGA).toFixed(1)} GB`,
  ].join(", ");
}

/** The proofs of a finished run, in one line. */
export function describeProofs(result: RunResult): string {
  const size = (value: number) => value.toExponential(1);
  const merged = result.max_abs_dlogit_merged === null ? "" : `, merged ${size(result.max_abs_dlogit_merged)}`;
  const logits = `moves logits by up to ${result.max_abs_dlogit_vs_base.toPrecision(2)} of ${result.max_abs_logit.toPrecision(2)}`;
  return `proofs: norm ${result.adapter_norm.toPrecision(3)}, ${logits}; reloaded differs by ${size(result.max_abs_dlogit_vs_memory)}${merged}`;
}

const number = (value: number | null, digits: number): string =>
  value === null ? "not finite" : value.toFixed(digits);

const perSecond = (rate: number): string =>
  rate >= 10 * THOUSAND ? `${(rate / THOUSAND).toFixed(1)}k` : rate.toFixed(0);
