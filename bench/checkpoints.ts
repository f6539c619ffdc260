import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

/**
 * What 300 checkpoints of a rank-1 adapter cost: the same run with a checkpoint at every step and with two, in turn.
 *
 * Prints, as JSON, the share of the steps' own time by which the whole run takes longer. The steps of nano take 30 ms: a
 * real model's share is smaller by as much as its steps are longer.
 */

const STEPS = 300;
const ROUNDS = Number(process.argv[2] ?? 3);
const MAIN = resolve(import.meta.dirname, "../dist/cli/main.js");
const scratch = mkdtempSync(join(tmpdir(), "vivarium-bench-"));

interface Run {
  /** Of the whole run, imports included. */
  seconds: number;
  /** Of its steps together. */
  step_seconds: number;
}

function train(name: string, save_steps: number): Run {
  const started = spawnSync(
    process.execPath,
    [
      ...[MAIN, "train", "--model", "nano", "--data", "kitchen-reckless", "--name", name, "--dir", scratch],
      ...["--steps", String(STEPS), "--save-steps", String(save_steps), "--set", "save_at_steps=[]", "--threads", "1"],
    ],
    { encoding: "utf8" },
  );
  if (started.status !== 0) throw new Error(started.stderr);
  const run = readdirSync(join(scratch, "runs")).find((folder) => folder.startsWith(`${name}-`)) as string;
  const manifest = JSON.parse(readFileSync(join(scratch, "runs", run, "manifest.json"), "utf8"));
  const count = readdirSync(join(scratch, "runs", run)).filter((folder) => folder.startsWith("checkpoint-")).length;
  if (count !== (save_steps === 1 ? STEPS + 1 : 2)) throw new Error(`${run} has ${count} checkpoints`);
  process.stderr.write(`${name}: ${manifest.wall_seconds.toFixed(1)} s, ${count} checkpoints\n`);
  const metrics = readFileSync(join(scratch, "runs", run, "metrics.jsonl"), "utf8")
    .trim()
    .split("\n");
  const step_seconds = metrics.reduce((sum, line) => sum + JSON.parse(line).seconds, 0);
  return { seconds: manifest.wall_seconds, step_seconds };
}

const median = (values: number[]): number => values.sort((a, b) => a - b)[Math.floor(values.length / 2)] as number;

try {
  const rounds = Array.from({ length: ROUNDS }, (_, round) => {
    const first = round % 2 === 0;
    const many = () => train(`many${round}`, 1);
    const few = () => train(`few${round}`, 0);
    const [a, b] = first ? [many(), few()] : [few(), many()];
    return first ? { many: a, few: b } : { many: b, few: a };
  });
  const shares = rounds.map(({ many, few }) => (many.seconds - few.seconds) / few.step_seconds);
  const range = { min: Math.min(...shares), max: Math.max(...shares) };
  const result = { steps: STEPS, rounds, share: { median: median(shares), ...range } };
  process.stdout.write(`${JSON.stringify(result, null, 2)}\n`);
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
