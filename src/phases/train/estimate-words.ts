import type { Estimate } from "./estimate.ts";

const count = (value: number): string => Math.round(value).toLocaleString("en-US");

const UNITS: readonly [size: number, unit: string][] = [
  [1e9, "GB"],
  [1e6, "MB"],
  [1e3, "kB"],
];

/** Bytes as a person reads them, e.g. `29.5 GB`. */
function bytes(value: number): string {
  const [size, unit] = UNITS.find(([limit]) => value >= limit) ?? [1, "B"];
  const shown = value / size;
  return `${shown < 10 && unit !== "B" ? shown.toFixed(1) : count(shown)} ${unit}`;
}

const SCALES: readonly [size: number, unit: string][] = [
  [1e18, "EFLOP"],
  [1e15, "PFLOP"],
  [1e12, "TFLOP"],
];

function flops(value: number): string {
  const [size, unit] = SCALES.find(([limit]) => value >= limit) ?? [1e9, "GFLOP"];
  return `${(value / size).toPrecision(3)} ${unit}`;
}

/** A time as a person reads it: seconds, minutes or hours. */
function duration(seconds: number): string {
  if (seconds < 90) return `${Math.ceil(seconds)} s`;
  if (seconds < 5400) return `${Math.ceil(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

/** An estimate in lines for a person, each with what it is made of. */
export function describeEstimate(estimate: Estimate): string[] {
  const lines: [string, string][] = [
    ["data", describeData(estimate)],
    ["disk", describeDisk(estimate)],
    ["memory", describeMemory(estimate)],
    ["work", describeWork(estimate)],
    ["time", describeTime(estimate)],
  ];
  return lines.map(([name, text]) => `${name.padEnd(8)}${text}`);
}

function describeData({ rows, steps, tokens, target_tokens }: Estimate): string {
  const held_out = rows.held_out > 0 ? ` and ${count(rows.held_out)} held out` : "";
  return `${count(rows.train)} rows${held_out}; ${count(steps)} steps over about ${count(tokens)} tokens, ${count(target_tokens)} of them trained`;
}

function describeDisk({ checkpoints, disk_bytes }: Estimate): string {
  const { checkpoint, last, total } = disk_bytes;
  return `${bytes(total)}: ${count(checkpoints)} checkpoints of ${bytes(checkpoint)}, and ${bytes(last)} to go on from`;
}

function describeMemory({ device_memory_bytes: memory }: Estimate): string {
  const { weights, adapter_and_optimizer, activations, activations_checkpointed, logits, total, total_checkpointed } =
    memory;
  const parts = `${bytes(weights)} weights, ${bytes(adapter_and_optimizer)} trained parameters and optimizer, ${bytes(logits)} logits`;
  return `${bytes(total)}: ${parts}, ${bytes(activations)} activations; with gradient checkpointing ${bytes(activations_checkpointed)} of these, ${bytes(total_checkpointed)} in all (counted, without the libraries' own)`;
}

function describeWork({ flops: work, prefix_cache }: Estimate): string {
  const below = prefix_cache ? work.prefix_cached : work.prefix;
  const parts = [
    ...(below > 0 ? [`${flops(below)} below the adapter${prefix_cache ? ", each row once" : ""}`] : []),
    `${flops(work.forward)} forward`,
    `${flops(work.backward)} backward`,
    ...(work.recomputed > 0 ? [`${flops(work.recomputed)} for checkpointing`] : []),
    ...(work.kl > 0 ? [`${flops(work.kl)} KL`] : []),
    ...(work.held_out > 0 ? [`${flops(work.held_out)} held out`] : []),
  ];
  const other = prefix_cache ? `; ${flops(work.total)} without the prefix cache` : "";
  return `${flops(prefix_cache ? work.total_cached : work.total)}: ${parts.join(", ")}${other}`;
}

function describeTime({ seconds, seconds_from }: Estimate): string {
  if (seconds === null) return "not known: no run on this base was measured here yet";
  return `${duration(seconds)} of steps (${seconds_from}), and the time to load and to prove`;
}
