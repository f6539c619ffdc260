import { existsSync, readFileSync } from "node:fs";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { logSoftmax } from "../../../src/runtime/logprobs.ts";
import { Bench, nano, prompt } from "./fixture.ts";

vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });

let bench: Bench;
beforeAll(async () => {
  bench = await Bench.create();
});
afterAll(() => bench[Symbol.dispose]());

test("writes one distribution a position, prompt after prompt, for the base and each adapter", async () => {
  const adapters = [
    { id: "zero", gguf: await bench.adapter("zero", 0) },
    { id: "some", gguf: await bench.adapter("some", 0.02) },
  ];
  const prompts = [prompt(7), prompt(1, 5), prompt(600, 2)]; // the last one is longer than a batch
  const { result } = await bench.run(bench.logprobsJob(prompts, { adapters }));
  expect(result).toMatchObject({ n_positions: 608, vocab_size: nano.vocab_size });
  expect(result.files.map(({ id }) => id)).toEqual(["base", "zero", "some"]);
  const [base, zero, some] = result.files.map(({ path }) => readFileSync(path));
  expect(result.files.map(({ bytes }) => bytes)).toEqual([base, zero, some].map((file) => file?.length));
  expect(readRows(result.files[0]?.path).map((row) => Math.abs(mass(row) - 1) < 1e-5)).toEqual(Array(608).fill(true));
  expect(zero?.equals(base as Buffer)).toBe(true);
  expect(some?.equals(base as Buffer)).toBe(false);
  const alone = await bench.run(bench.logprobsJob([prompt(1, 5)]));
  const rowBytes = 4 * nano.vocab_size; // nothing is left of other prompts:
  expect(
    readFileSync(alone.result.files[0]?.path ?? "").equals(base?.subarray(7 * rowBytes, 8 * rowBytes) as Buffer),
  ).toBe(true);
});

test("half-precision cache and flash attention are other numbers, but near", async () => {
  const prompts = [prompt(40)];
  const [strict, served] = await Promise.all([
    bench.run(bench.logprobsJob(prompts)),
    bench.run(bench.logprobsJob(prompts, { kv_type: "F16", flash_attention: true })),
  ]);
  const [a = [], b = []] = [strict, served].map(({ result }) => readRows(result.files[0]?.path));
  const gaps = a.map((row, i) => Math.max(...row.map((lp, j) => Math.abs(lp - (b[i]?.[j] ?? Number.NaN)))));
  expect(Math.max(...gaps)).toBeGreaterThan(0);
  expect(Math.max(...gaps)).toBeLessThan(0.2);
});

test("a bad prompt is refused before anything is written", async () => {
  const job = bench.logprobsJob([[5], [nano.vocab_size]]);
  await expect(bench.run(job)).rejects.toMatchObject({ code: "DATA_INVALID" });
  expect(existsSync(job.out_dir)).toBe(false);
});

test("log-softmax covers the vocabulary, shifts out and refuses what is no number", () => {
  const row = new Float32Array(3);
  logSoftmax([2, 1000, 0, 1000 + Math.log(2), 1, 1000], row);
  expect([...row].map((lp) => Math.exp(lp).toFixed(6))).toEqual(["0.500000", "0.250000", "0.250000"]);
  expect(() => logSoftmax([0, 1], row)).toThrow("Expected 3 logits, got 1");
  expect(() => logSoftmax([0, 1, 1, Number.NaN, 2, 1], row)).toThrow("not finite");
});

function readRows(path = ""): Float32Array[] {
  const bytes = readFileSync(path);
  const values = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
  const n = values.length / nano.vocab_size;
  return Array.from({ length: n }, (_, i) => values.subarray(i * nano.vocab_size, (i + 1) * nano.vocab_size));
}

function mass(row: Float32Array): number {
  return row.reduce((sum, logprob) => sum + Math.exp(logprob), 0);
}
