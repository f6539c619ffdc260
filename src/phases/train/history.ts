import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import type { ModelConfig } from "../../formats/model-config.ts";
import { CacheUse } from "../../protocol/training.ts";
import { MetricsRow, RunConfig } from "../../records/run.ts";
import type { MeasuredSpeed } from "./estimate.ts";
import { passFlops } from "./estimate-flops.ts";

/** The first steps of a run load kernels and fill caches: they are not taken as its speed. */
const WARM_UP_STEPS = 2;

/**
 * How fast the longest finished run on the same base was, or null where none lies in the folder.
 *
 * @param runs_dir folder of runs.
 * @param base_sha256 identity of the base.
 */
export function measuredSpeed(runs_dir: string, base_sha256: string, config: ModelConfig): MeasuredSpeed | null {
  const found = (existsSync(runs_dir) ? readdirSync(runs_dir) : [])
    .map((run) => ({ run, ...readRun(join(runs_dir, run)) }))
    .filter(({ settings, rows }) => settings?.base_model.sha256 === base_sha256 && rows.length > WARM_UP_STEPS)
    .map(({ run, settings, rows, computed }) => ({ run, ...speed(config, settings as RunConfig, rows, computed) }))
    .sort((a, b) => b.tokens - a.tokens);
  const [longest] = found;
  return longest === undefined ? null : { run: longest.run, flops_per_second: longest.flops_per_second };
}

/** What of a run's manifest is looked at. */
const Facts = z.object({
  facts: z.object({ prefix_cache: CacheUse.nullable() }),
});

interface ReadRun {
  settings: RunConfig | undefined;
  rows: MetricsRow[];
  /** Part of the row passes that went through the layers below the split: not those that came from the prefix cache. */
  computed: number;
}

/** What a run left, as far as it can be read: an unfinished or older one is no error here. */
function readRun(dir: string): ReadRun {
  const none = { settings: undefined, rows: [], computed: 1 };
  try {
    const read = (name: string) => readFileSync(join(dir, name), "utf8");
    const settings = RunConfig.parse(JSON.parse(read("config.json")));
    const { prefix_cache } = Facts.parse(JSON.parse(read("manifest.json"))).facts;
    const { hits, misses } = prefix_cache ?? { hits: 0, misses: 1 };
    const lines = read("metrics.jsonl").split("\n").slice(0, -1);
    const rows = lines.map((line) => MetricsRow.parse(JSON.parse(line)));
    return { settings, rows, computed: misses / Math.max(1, hits + misses) };
  } catch {
    return none;
  }
}

function speed(config: ModelConfig, { lora, training }: RunConfig, rows: readonly MetricsRow[], computed: number) {
  const warm = rows.slice(WARM_UP_STEPS);
  const sum = (pick: (row: MetricsRow) => number) => warm.reduce((total, row) => total + pick(row), 0);
  const tokens = sum((row) => row.tokens);
  const per_row = tokens / (warm.length * training.per_device_train_batch_size * training.gradient_accumulation_steps);
  const pairs = (tokens * (per_row + 1)) / 2;
  const pass = passFlops(config, lora, { tokens, pairs, targets: sum((row) => row.target_tokens) });
  return {
    tokens,
    flops_per_second: (pass.prefix * computed + pass.forward + pass.backward) / sum((row) => row.seconds),
  };
}
