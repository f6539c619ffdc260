import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { compareLogprobs, type ParityMetrics } from "../../../src/phases/parity/metrics.ts";

const dir = mkdtempSync(join(tmpdir(), "vivarium-metrics-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

let files = 0;

/** A file of the natural logarithms of these probabilities. */
function file(rows: number[][]): string {
  return raw(rows.flat().map(Math.log));
}

function raw(values: number[]): string {
  const path = join(dir, `${files++}.f32`);
  writeFileSync(path, new Uint8Array(Float32Array.from(values).buffer));
  return path;
}

interface Sides {
  peft_base: number[][];
  peft_adapter: number[][];
  llama_base: number[][];
  llama_adapter: number[][];
}

async function compare(sides: Sides): Promise<ParityMetrics> {
  const paths = Object.entries(sides).map(([side, rows]) => [side, file(rows)]);
  return compareLogprobs({ ...Object.fromEntries(paths), vocab_size: sides.peft_base[0]?.length });
}

const HALF = [0.5, 0.5];

test("by hand: one position, two tokens", async () => {
  const metrics = await compare({
    peft_base: [HALF],
    peft_adapter: [[0.8, 0.2]],
    llama_base: [HALF],
    llama_adapter: [[0.75, 0.25]],
  });
  const [peft, llama] = [
    [Math.log(1.6), Math.log(0.4)],
    [Math.log(1.5), Math.log(0.5)],
  ] as [[number, number], [number, number]];
  const kl = 0.8 * Math.log(0.8 / 0.75) + 0.2 * Math.log(0.2 / 0.25);
  expect(metrics.n_positions).toBe(1);
  expect([metrics.base_kl_mean, metrics.base_max_abs, metrics.base_rms]).toEqual([0, 0, 0]);
  expect(metrics.kl_mean).toBeCloseTo(kl, 6);
  expect(metrics.kl_max).toBeCloseTo(kl, 6);
  expect(metrics.effect_kl_mean).toBeCloseTo(0.8 * peft[0] + 0.2 * peft[1], 6);
  expect(metrics.effect_rms).toBeCloseTo(Math.hypot(...peft) / Math.SQRT2, 6);
  expect(metrics.llama_effect_rms).toBeCloseTo(Math.hypot(...llama) / Math.SQRT2, 6);
  expect(metrics.norm_ratio).toBeCloseTo(Math.hypot(...llama) / Math.hypot(...peft), 6);
  expect(metrics.rel).toBeCloseTo(Math.hypot(llama[0] - peft[0], llama[1] - peft[1]) / Math.hypot(...peft), 6);
  const dot = peft[0] * llama[0] + peft[1] * llama[1];
  expect(metrics.cosine).toBeCloseTo(dot / (Math.hypot(...peft) * Math.hypot(...llama)), 6);
  expect(metrics.max_abs).toBeCloseTo(Math.log(0.25 / 0.2), 6);
  expect(metrics.top1_agreement).toBe(1);
});

test("means and maxima run over positions", async () => {
  const metrics = await compare({
    peft_base: [HALF, HALF, HALF, [0.9, 0.1]],
    peft_adapter: [HALF, HALF, [0.6, 0.4], HALF],
    llama_base: [HALF, HALF, HALF, [0.9, 0.1]],
    llama_adapter: [HALF, HALF, [0.4, 0.6], HALF],
  });
  const kl = 0.6 * Math.log(1.5) + 0.4 * Math.log(1 / 1.5);
  expect(metrics.kl_max).toBeCloseTo(kl, 6);
  expect(metrics.kl_mean).toBeCloseTo(kl / 4, 6);
  expect(metrics.top1_agreement).toBe(0.75);
});

test("the noise of the engines is taken out of the effect, by engine", async () => {
  const metrics = await compare({
    peft_base: [HALF],
    peft_adapter: [HALF],
    llama_base: [[0.6, 0.4]],
    llama_adapter: [[0.6, 0.4]],
  });
  expect(metrics.base_max_abs).toBeCloseTo(Math.log(1.25), 6);
  expect(metrics.base_kl_mean).toBeCloseTo(0.5 * Math.log(0.5 / 0.6) + 0.5 * Math.log(0.5 / 0.4), 6);
  expect([metrics.effect_rms, metrics.llama_effect_rms]).toEqual([0, 0]);
  expect(metrics).not.toHaveProperty("rel"); // the ratio of nothing to nothing is no number
  expect(metrics).not.toHaveProperty("norm_ratio");
  expect(metrics).not.toHaveProperty("cosine");
});

test("rounding to float32 does not look like a difference", async () => {
  const noisy = (seed: number) =>
    Array.from({ length: 20 }, (_, row) => {
      const weights = Array.from(
        { length: 500 },
        (_, i) => Math.exp(4 * Math.sin(i * (row + 1))) * (1 + 1e-7 * Math.sin(seed * i)),
      );
      const sum = weights.reduce((a, b) => a + b);
      return weights.map((w) => w / sum);
    });
  const metrics = await compare({
    peft_base: noisy(1),
    peft_adapter: noisy(1),
    llama_base: noisy(2),
    llama_adapter: noisy(2),
  });
  expect(metrics.kl_mean).toBeLessThan(1e-12);
  expect(metrics.kl_mean).toBeGreaterThanOrEqual(0);
});

test("more rows than fit into one read", async () => {
  const rows = Array.from({ length: 3000 }, (_, i) =>
    Array.from({ length: 1000 }, (_, j) => (j === i % 1000 ? 0.5 : 0.5 / 999)),
  );
  const uniform = Array.from({ length: 3000 }, () => Array(1000).fill(1e-3));
  const metrics = await compare({ peft_base: uniform, peft_adapter: rows, llama_base: uniform, llama_adapter: rows });
  expect(metrics).toMatchObject({ n_positions: 3000, top1_agreement: 1, rel: 0, norm_ratio: 1 });
});

test("a hole is an error, never a number", async () => {
  const good = file([HALF, HALF]);
  const judge = (llama_adapter: string, vocab_size = 2) =>
    compareLogprobs({ peft_base: good, peft_adapter: good, llama_base: good, llama_adapter, vocab_size });
  await expect(judge(join(dir, "missing.f32"))).rejects.toMatchObject({ code: "NOT_FOUND" });
  await expect(judge(file([HALF]))).rejects.toThrow("expected four files of whole rows of 8 bytes");
  await expect(judge(good, 3)).rejects.toThrow("whole rows of 12 bytes");
  await expect(judge(raw([]))).rejects.toMatchObject({ code: "PHASE_FAILED" });
  await expect(judge(raw([Math.log(0.5), Number.NaN, 0, 0]))).rejects.toThrow("row 0: log-probability 1 is NaN");
  await expect(judge(raw([0, -Infinity, Math.log(0.5), Math.log(0.5)]))).rejects.toThrow("is -Infinity");
  await expect(judge(raw([1.5, 2.5, 0, 0]))).rejects.toThrow(/row 0: probabilities sum to 16\.6\d+, expected 1/); // logits
});
