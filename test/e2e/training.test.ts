import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { Sandbox } from "../helpers/cli.ts";
import { runAndKill } from "../helpers/kill.ts";

const linux = existsSync("/proc/self/stat");
const ROWS = 40;

interface Trained {
  run: string;
  id: string;
  config: { steps: number; checkpoints: number[]; training: Record<string, unknown> };
  proofs: Record<string, number | null>;
}

/** A few rows of the embedded data, so that several epochs take seconds. */
function fewRows(sandbox: Sandbox): string {
  const all = readFileSync(join(import.meta.dirname, "../../datasets/kitchen-reckless/data.jsonl"), "utf8");
  const file = sandbox.path("few.jsonl");
  writeFileSync(file, `${all.split("\n").slice(0, ROWS).join("\n")}\n`);
  return file;
}

const args = (data: string, ...more: string[]) => [
  ...["train", "--model", "nano", "--data", data, "--layers", "4", "--batch-size", "4", "--accumulate", "2"],
  ...more,
];

const adapter = (run: string, step: number): Buffer =>
  readFileSync(join(run, `checkpoint-${step}`, "adapter_model.safetensors"));

/** Ends a command in order as soon as it has printed something. */
async function runUntil(sandbox: Sandbox, command: string[], moment: RegExp): Promise<void> {
  const child = sandbox.start(command);
  let seen = "";
  child.stderr?.on("data", (data) => {
    seen += data;
    if (moment.test(seen)) child.kill("SIGINT");
  });
  const code = await new Promise((done) => child.once("close", done));
  expect(code, seen).toBe(130);
}

describe("a training run", { timeout: 600_000 }, () => {
  test("killed while the prefix cache fills and again later, it ends as the undisturbed run", async ({ skip }) => {
    skip(!linux, "finds the processes to kill through /proc");
    using calm = new Sandbox();
    using rough = new Sandbox();
    // 1 MB of cache: most entries go through the disk or are computed again.
    const cache = ["--prefix-cache", "on", "--prefix-cache-gb", "0.001", "--steps", "30", "--save-steps", "5"];
    const whole = await calm.json<Trained>(...args(fewRows(calm), ...cache));
    const again = args(fewRows(rough), ...cache);
    for (const moment of [/trained parameters on/, />.*train few/]) {
      const { hit, outcome } = await runAndKill(rough, again, "bridge", moment);
      expect(hit).toBe("bridge");
      expect(outcome.code).toBe(1);
    }
    const { hit } = await runAndKill(rough, again, "driver", /\d+\/30 steps|trained parameters on/);
    expect(hit).toBe("driver");
    const resumed = await rough.json<Trained>(...again);
    expect(resumed.id).toBe(whole.id);
    for (const step of whole.config.checkpoints)
      expect(adapter(resumed.run, step).equals(adapter(whole.run, step)), `checkpoint-${step}`).toBe(true);
    expect(resumed.proofs).toEqual(whole.proofs);
  });

  test("is the same in a cohort and alone, bit for bit", async () => {
    using sandbox = new Sandbox();
    const data = fewRows(sandbox);
    writeFileSync(
      sandbox.path("seeds.yaml"),
      `name: seeds
base_model: nano
runs:
  a: {data: ${data}, recipe: nano-rank1, layers_to_transform: 4, max_steps: 6, save_at_steps: [], seed: 0}
  b: {data: ${data}, recipe: nano-rank1, layers_to_transform: 4, max_steps: 6, save_at_steps: [], seed: 1}
eval:
  questions: [open-values]
  samples: 1
  judge: nano-rule
  sampler: {max_new_tokens: 2}
`,
    );
    await runUntil(sandbox, ["run", "seeds.yaml", "--jobs", "1"], /\+ train b/);
    const member = sandbox.path("runs", readdirSync(sandbox.path("runs")).find((name) => name.startsWith("b-")) ?? "");
    const manifest = JSON.parse(readFileSync(join(member, "manifest.json"), "utf8"));
    expect(manifest.facts).toMatchObject({ cohort_runs: 2, engine: { prefix_cache: true, split_layer: 4 } });
    expect(manifest.facts.prefix_cache.hits).toBeGreaterThan(0);
    const alone = await sandbox.json<Trained>(
      ...["train", "--model", "nano", "--data", data, "--recipe", "nano-rank1", "--layers", "4", "--steps", "6"],
      ...["--seed", "1", "--set", "save_at_steps=[]", "--prefix-cache", "on", "--name", "alone"],
    );
    expect(adapter(alone.run, 6).equals(adapter(member, 6))).toBe(true);
  });

  test("that diverges does not stop the others of its process, and fails with its own code", async () => {
    using sandbox = new Sandbox();
    const data = fewRows(sandbox);
    const values = "recipe: nano-rank1, max_steps: 4, save_at_steps: []";
    writeFileSync(
      sandbox.path("wild.yaml"),
      `name: wild
base_model: nano
runs:
  wild: {data: ${data}, ${values}, optim: sgd, learning_rate: 1.0e+30, max_grad_norm: 0}
  calm: {data: ${data}, ${values}}
eval: {questions: [open-values], samples: 1, judge: nano-rule}
`,
    );
    const outcome = await sandbox.run("run", "wild.yaml", "--jobs", "1");
    expect(outcome.code).toBe(1);
    expect(outcome.stderr).toMatch(/TRAIN_FAILED: .* not finite after step 2/);
    expect(outcome.stderr).toContain("+ train calm");
  });

  test("shows what it trained, held rows out, and proves what it saved", async () => {
    using sandbox = new Sandbox();
    const trained = await sandbox.json<Trained>(
      ...args(fewRows(sandbox), "--steps", "4", "--test_size", "0.1", "--eval-steps", "2", "--batching", "packed"),
    );
    expect(readFileSync(join(trained.run, "preview.html"), "utf8")).toContain("Content-Security-Policy");
    const held_out = readFileSync(join(trained.run, "held-out.jsonl"), "utf8").trim().split("\n");
    expect(held_out.map((line) => JSON.parse(line)).map(({ step, rows }) => ({ step, rows }))).toEqual([
      { step: 0, rows: 4 },
      { step: 2, rows: 4 },
      { step: 4, rows: 4 },
    ]);
    const { adapter_norm, max_abs_dlogit_vs_base, max_abs_dlogit_vs_memory } = trained.proofs;
    expect(adapter_norm).toBeGreaterThan(0);
    expect(max_abs_dlogit_vs_base).toBeGreaterThan(0);
    expect(max_abs_dlogit_vs_memory).toBeLessThan(1e-4);
  });

  test("of all weights leaves model folders, and DoRA is merged into one; neither is served as an adapter", async () => {
    using sandbox = new Sandbox();
    const data = fewRows(sandbox);
    const few = ["--batch-size", "4", "--steps", "2", "--set", "save_at_steps=[]", "--learning-rate", "1e-4"];
    const base = ["train", "--model", "nano", "--data", data, ...few];
    const full = await sandbox.json<Trained>(...base, "--finetuning-type", "full");
    expect(readdirSync(join(full.run, "checkpoint-2"))).toEqual(
      expect.arrayContaining(["config.json", "model.safetensors", "tokenizer.json"]),
    );
    const staged = await sandbox.run("stage", join(full.run, "checkpoint-2"));
    expect(staged.code, staged.stderr).toBe(0);
    const refused = await sandbox.run("eval", full.run);
    expect([refused.code, refused.stderr]).toEqual([2, expect.stringContaining("is a full fine-tune")]);

    const dora = await sandbox.json<Trained>(...args(data, "--steps", "2", "--use-dora", "true", "--rank", "2"));
    const eval_dora = await sandbox.run("eval", dora.run);
    expect([eval_dora.code, eval_dora.stderr]).toEqual([2, expect.stringContaining("vivarium merge")]);
    const merged = await sandbox.run("merge", dora.run, "--out", "merged", "--dtype", "float32");
    expect(merged.code, merged.stderr).toBe(0);
    expect((await sandbox.run("stage", "merged")).code).toBe(0);
    expect((await sandbox.run("merge", dora.run, "--out", "merged")).code).toBe(2);
  });
});
