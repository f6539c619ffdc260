import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { parseModelConfig } from "../../../src/formats/model-config.ts";
import { type EstimateWish, estimateRun, largestBatch } from "../../../src/phases/train/estimate.ts";
import { passFlops } from "../../../src/phases/train/estimate-flops.ts";
import { weightBytes } from "../../../src/phases/train/estimate-memory.ts";
import { describeEstimate } from "../../../src/phases/train/estimate-words.ts";
import { measuredSpeed } from "../../../src/phases/train/history.ts";
import { type Recipe, resolveRecipe } from "../../../src/records/recipe.ts";

/** Qwen2.5-14B-Instruct. Source: its config.json. */
const CONFIG = parseModelConfig({
  model_type: "qwen2",
  vocab_size: 152064,
  hidden_size: 5120,
  intermediate_size: 13824,
  num_hidden_layers: 48,
  num_attention_heads: 40,
  num_key_value_heads: 8,
}).config as NonNullable<ReturnType<typeof parseModelConfig>["config"]>;

const ROWS = Array.from({ length: 100 }, (_, index) => ({ tokens: 150 + index, targets: 60 }));

function wish(recipe: Recipe, more: Partial<EstimateWish> = {}): EstimateWish {
  const resolved = resolveRecipe([recipe], { n_layers: 48, rows: ROWS.length, cuda: true });
  return {
    config: CONFIG,
    ...{ lora: resolved.lora, training: resolved.training, steps: resolved.steps, rows: ROWS },
    ...{ checkpoints: resolved.checkpoints.length, eval_rows: null, kl_rows: null },
    ...{ cuda: true, prefix_cache: false, measured: null, ...more },
  };
}

const RANK1: Recipe = {
  ...{ r: 1, target_modules: ["down_proj"], layers_to_transform: "mid", num_train_epochs: 2 },
  ...{ per_device_train_batch_size: 2, gradient_accumulation_steps: 8 },
};

test("a rank-1 adapter in the middle of Qwen2.5-14B", () => {
  const estimate = estimateRun(wish(RANK1, { prefix_cache: true }));
  expect(estimate).toMatchObject({
    rows: { train: 100, held_out: 0 },
    steps: 14,
    tokens: 39_900,
    target_tokens: 12_000,
  });
  // 18,944 parameters in float32, and a header of some hundred bytes.
  expect(estimate.disk_bytes.checkpoint).toBeGreaterThan(18_944 * 4);
  expect(estimate.disk_bytes.checkpoint).toBeLessThan(18_944 * 4 + 400);
  expect(estimate.device_memory_bytes.weights).toBe(14_770_033_664 * 2);
  expect(estimate.seconds).toBeNull();
  const { prefix, prefix_cached, total, total_cached } = estimate.flops;
  expect(prefix / prefix_cached).toBeCloseTo(2, 6); // two epochs
  expect(total - total_cached).toBeCloseTo(prefix - prefix_cached, -6);
  expect(describeEstimate(estimate)).toMatchInlineSnapshot(`
    [
      "data    100 rows; 14 steps over about 39,900 tokens, 12,000 of them trained",
      "disk    379 kB: 2 checkpoints of 76 kB, and 227 kB to go on from",
      "memory  32 GB: 30 GB weights, 303 kB trained parameters and optimizer, 109 MB logits, 1.9 GB activations; with gradient checkpointing 216 MB of these, 30 GB in all (counted, without the libraries' own)",
      "work    1.34 PFLOP: 265 TFLOP below the adapter, each row once, 548 TFLOP forward, 529 TFLOP backward; 1.61 PFLOP without the prefix cache",
      "time    not known: no run on this base was measured here yet",
    ]
  `);
});

test("time comes from what was measured, and more work takes more of it", () => {
  const measured = { run: "organism-1", flops_per_second: 1e14 };
  const plain = estimateRun(wish(RANK1, { measured }));
  expect(plain.seconds).toBeCloseTo(plain.flops.total / 1e14, 6);
  expect(plain.seconds_from).toBe("measured: organism-1 on this machine");
  const more = estimateRun(
    wish(
      { ...RANK1, test_size: 0.1, eval_steps: 2, kl_weight: 1, kl_batch_size: 4, gradient_checkpointing: true },
      {
        measured,
        kl_rows: ROWS,
      },
    ),
  );
  expect(more.rows).toEqual({ train: 90, held_out: 10 });
  expect(more.tokens).toBeLessThan(plain.tokens);
  for (const part of ["recomputed", "kl", "held_out"] as const) expect(more.flops[part]).toBeGreaterThan(0);
  expect(describeEstimate(more).join("\n")).toMatch(/for checkpointing.* KL, .* held out/);
});

test("4-bit weights, rank 32 and full fine-tunes", () => {
  const all_linear: Recipe = { r: 32, target_modules: "all-linear", per_device_train_batch_size: 2 };
  const memory = (recipe: Recipe) => estimateRun(wish(recipe)).device_memory_bytes;
  // QLoRA: 13.2 billion weights in 0.516 bytes, 1.56 billion of embedding and output layer in 2.
  expect(memory({ ...all_linear, load_in_4bit: true }).weights / 1e9).toBeCloseTo(9.93, 1);
  expect(memory(all_linear).adapter_and_optimizer).toBe(137_625_600 * 16);
  const eight = memory({ ...all_linear, optim: "adamw_8bit" }).adapter_and_optimizer;
  expect(eight / 137_625_600).toBeGreaterThan(10);
  expect(eight / 137_625_600).toBeLessThan(10.1);
  const full = memory({ finetuning_type: "full", optim: "sgd" });
  expect(full.adapter_and_optimizer).toBe(14_770_033_664 * 2); // its gradients
  expect(weightBytes(CONFIG, { dtype: "float32", load_in_4bit: false, optim: "sgd" })).toBe(14_770_033_664 * 4);
});

test("a share of what a pass takes is below the adapter, and none where all layers are adapted", () => {
  const rows = { tokens: 1000, pairs: 0, targets: 0 };
  const { lora } = resolveRecipe([RANK1], { n_layers: 48, rows: 1, cuda: true });
  const mid = passFlops(CONFIG, lora, rows);
  expect(mid.prefix / (mid.prefix + mid.forward)).toBeCloseTo(0.5, 3);
  const all = passFlops(CONFIG, resolveRecipe([{}], { n_layers: 48, rows: 1, cuda: true }).lora, rows);
  expect(all.prefix).toBe(0);
  expect(mid.backward / all.backward).toBeLessThan(0.5);
});

test("the largest micro-batch: the longest rows, padded, or packed into one line", () => {
  const training = { per_device_train_batch_size: 2, batching: "by_length" } as const;
  expect(largestBatch(ROWS, training)).toEqual({ rows: 2, width: 249, slots: 498, targets: 120, is_masked: true });
  expect(largestBatch(ROWS, { ...training, batching: "packed" })).toMatchObject({
    rows: 1,
    width: 498,
    is_masked: true,
  });
  expect(largestBatch(ROWS, { ...training, per_device_train_batch_size: 1 }).is_masked).toBe(false);
});

const folder = mkdtempSync(join(tmpdir(), "vivarium-history-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test("what cannot be read is no measurement", () => {
  mkdirSync(join(folder, "broken"));
  writeFileSync(join(folder, "broken", "config.json"), "{");
  expect(measuredSpeed(folder, "0".repeat(64), CONFIG)).toBeNull();
  expect(measuredSpeed(join(folder, "nowhere"), "0".repeat(64), CONFIG)).toBeNull();
});

test("a finished run of the same base tells how fast this machine is", () => {
  const estimated = wish(RANK1);
  const { lora, training, steps } = estimated;
  const run = join(folder, "organism-1");
  const sha256 = "a".repeat(64);
  const base_model = { id: "q", sha256, n_layers: 48, tokenizer_sha256: sha256, template_sha256: sha256 };
  const config = {
    ...{ schema_version: 2, name: "organism", base_model, data: { id: "d", sha256, rows: 100 } },
    ...{ eval_data: null, kl_data: null, chat_template_kwargs: {}, lora, training, steps, checkpoints: [0, steps] },
    rendering: { rendering: "clean", thinking: "off", assistant_turns: "all" },
    source: { base_model: "q", data: "d", eval_data: null, kl_data: null },
  };
  const row = (step: number) => ({
    ...{ step, epoch: 1, loss: 1, kl: null, grad_norm: 1, learning_rate: 1, padding_tokens: 0, tokens_per_second: 1 },
    ...{ mfu: null, a_norm: 1, b_norm: 1, peak_memory_bytes: 1, tokens: 16 * 200, target_tokens: 16 * 60 },
    seconds: step <= 2 ? 100 : 2,
  });
  mkdirSync(run);
  writeFileSync(join(run, "config.json"), JSON.stringify(config));
  writeFileSync(join(run, "metrics.jsonl"), `${[1, 2, 3, 4].map((step) => JSON.stringify(row(step))).join("\n")}\n`);
  expect(measuredSpeed(folder, sha256, CONFIG)).toBeNull(); // not finished: no manifest
  writeFileSync(join(run, "manifest.json"), JSON.stringify({ facts: { prefix_cache: null } }));
  const pass = passFlops(CONFIG, lora, { tokens: 3200, pairs: 3200 * 100.5, targets: 960 });
  const speed = measuredSpeed(folder, sha256, CONFIG);
  expect(speed?.run).toBe("organism-1");
  expect((speed?.flops_per_second ?? 0) / ((pass.prefix + pass.forward + pass.backward) / 2)).toBeCloseTo(1, 6);
});
