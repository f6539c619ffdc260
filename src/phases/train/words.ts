import type { RunResult, TrainStart, TrainStep } from "../../protocol/wire.ts";

const GIGA = 1e9;
const THOUSAND = 1000;

/** What is about to be trained and how, in one line. */
export function describeStart(start: TrainStart): string {
  const split =
    start.split_layer === 0
      ? "no split"
      : `layers below ${start.split_layer} without gradient${start.prefix_cache ? ", their output cached" : ""}`;
  return [
    `${start.trainable_parameters.toLocaleString("en")} trained parameters on ${start.device}`,
    `${start.train_rows} rows${start.held_out_rows > 0 ? ` (${start.held_out_rows} held out)` : ""}`,
    split,
    `gradient checkpointing ${start.gradient_checkpointing ? "on" : "off"}`,
    ...(start.resumed_from_step > 0 ? [`going on from step ${start.resumed_from_step}`] : []),
  ].join("; ");
}

/**
 * Loss in nats per target token, learning rate, gradient norm, target tokens a second and peak memory of one step.
 *
 * @param held_out the last loss on held-out rows; null when it was not finite, undefined when there is none.
 */
export function describeStep(step: TrainStep, held_out: number | null | undefined): string {
  const rate = step.seconds > 0 ? step.target_tokens / step.seconds : 0;
  return [
    `loss ${number(step.loss, 3)}`,
    ...(held_out === undefined ? [] : [`held out ${number(held_out, 3)}`]),
    ...(step.kl === null ? [] : [`kl ${step.kl.toPrecision(2)}`]),
    `lr ${step.learning_rate.toExponential(1)}`,
    `grad ${step.grad_norm === null ? "not finite" : step.grad_norm.toPrecision(2)}`,
    `${rate >= 10 * THOUSAND ? `${(rate / THOUSAND).toFixed(1)}k` : rate.toFixed(0)} target tok/s`,
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
