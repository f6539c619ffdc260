import { SCENARIO_NAMES, type ScenarioName } from "./scenarios.ts";
import type { Ratio } from "./statistics.ts";
import type { Speedup, Summary, Use } from "./summary.ts";

const TITLES: Record<ScenarioName, string> = {
  rank1: "Rank-1 adapter on down_proj of the middle layer, float32",
  rank32: "Rank-32 adapter on all linear layers, float32",
  bf16: "Rank-1 adapter on down_proj of the middle layer, bfloat16",
};

const ROWS: Record<string, string> = {
  first_pass: "first pass",
  first_pass_by_length: "first pass, rows of a step sorted by length",
  cached: "later passes: prefix cache, sorted",
  epochs3: "three epochs: one that fills the cache, two from it",
  by_length: "rows of a step sorted by length",
};

/** The summary for people: all baselines beside each other. */
export function renderTable(summary: Summary): string {
  const lines = [...head(summary), ""];
  for (const name of SCENARIO_NAMES) {
    const part = summary[name];
    if (part !== undefined) lines.push(TITLES[name], ...ratios(part), "", ...uses(part.workers), "");
  }
  const { max_loss_diff, max_rel_weight_diff, passed } = summary.equality;
  lines.push(
    `equality: ${JSON.stringify({ max_loss_diff, max_rel_weight_diff })} ${passed === null ? "not checked: no float32 scenario" : passed ? "passed" : "FAILED"}`,
  );
  return lines.join("\n");
}

function head({ machine, versions, shape, rows, trl_head }: Summary): string[] {
  const packages = Object.entries(versions).map(([name, version]) => `${name} ${version}`);
  const percent = (share: number) => `${(100 * share).toFixed(1)} %`;
  return [
    `${machine.cpu}, ${machine.cores} cores, ${gigabytes(machine.memory_bytes)}; one thread a worker`,
    packages.join(", "),
    `Qwen2, random weights: ${shape.num_hidden_layers} layers, hidden ${shape.hidden_size}, intermediate ${shape.intermediate_size}, vocabulary ${shape.vocab_size}`,
    `lm_head has ${percent(shape.lm_head_share)} of the matrix weights, in Qwen2.5-14B ${percent(shape.lm_head_share_of_qwen25_14b)}`,
    `${rows.rows} rows, ${rows.rows_per_step} a step: ${rows.tokens} tokens, ${rows.target_tokens} targets, in ${rows.slots_in_order} slots as drawn and ${rows.slots_by_length} by length`,
    `TRL's head scores ${trl_head}`,
  ];
}

function ratios(part: object): string[] {
  const found = Object.entries(part).filter(([, value]) => isSpeedup(value)) as [string, Speedup][];
  if (isSpeedup(part)) found.unshift(["first_pass", part]);
  const heads = `  ${"times faster than".padEnd(52)}${"TRL default".padStart(22)}${"TRL without checkpointing".padStart(28)}`;
  const row = ([name, { vs_default, vs_no_gc }]: [string, Speedup]) =>
    `  ${(ROWS[name] ?? name).padEnd(52)}${one(vs_default).padStart(22)}${one(vs_no_gc).padStart(28)}`;
  return [heads, ...found.map(row)];
}

function isSpeedup(value: unknown): value is Speedup {
  return typeof value === "object" && value !== null && "vs_default" in value;
}

function one({ median, min, max }: Ratio): string {
  return `${median.toFixed(2)} (${min.toFixed(2)}-${max.toFixed(2)})`;
}

function uses(workers: Record<string, Use>): string[] {
  const row = ([name, use]: [string, Use]) =>
    `  ${name.padEnd(24)}${use.cpu_seconds.map((seconds) => seconds.toFixed(2).padStart(8)).join("")}   peak ${gigabytes(use.peak_rss_bytes)}`;
  return ["  CPU seconds of each step", ...Object.entries(workers).map(row)];
}

function gigabytes(bytes: number): string {
  return `${(bytes / 1e9).toFixed(2)} GB`;
}
