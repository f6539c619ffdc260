import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import type { DriverError } from "../../../src/errors.ts";
import { validateBlocks } from "../../../src/runtime/sample.ts";
import { Bench, block, prompt, type Responses, SAMPLER } from "./fixture.ts";

vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });

let bench: Bench;
beforeAll(async () => {
  bench = await Bench.create();
});
afterAll(() => bench[Symbol.dispose]());

const BLOCKS = [0, 1, 2, 3, 4, 5].map((i) => block(`b${i}`, prompt(3 + 9 * i, i), 10, 1000 * i));

describe("the same block gives the same tokens", () => {
  let all: Map<string, Responses>;
  let adapter: string;
  beforeAll(async () => {
    adapter = await bench.adapter("determinism", 0.01);
    all = await bench.sample(BLOCKS, { adapter: { gguf: adapter, scale: 1 } });
  });
  const again = (blocks: typeof BLOCKS, overrides = {}) =>
    bench.sample(blocks, { adapter: { gguf: adapter, scale: 1 }, ...overrides });

  test("in a fresh process, in the other order, and twice in one job", async () => {
    const reversed = [...BLOCKS].reverse();
    const twice = await again([...reversed, { ...(BLOCKS[2] as (typeof BLOCKS)[0]), key: "again" }]);
    expect(twice.get("again")).toEqual(all.get("b2"));
    twice.delete("again");
    expect(Object.fromEntries(twice)).toEqual(Object.fromEntries(all));
  });

  test("alone", async () => {
    for (const one of [0, 5])
      expect(await again([BLOCKS[one] as never])).toEqual(new Map([[`b${one}`, all.get(`b${one}`)]]));
  });

  test("whatever else is in the batch: 1 or 16 seeds instead of 10, other seeds, another context size", async () => {
    const ids = BLOCKS[4]?.prompt_ids ?? [];
    const more = await again([block("16", ids, 16, 4000), block("1", ids, 1, 4003), block("from 7", ids, 3, 4007)], {
      context_tokens: 512,
    });
    const expected = all.get("b4") ?? [];
    expect(more.get("16")?.slice(0, 10)).toEqual(expected);
    expect(more.get("1")).toEqual(expected.slice(3, 4));
    expect(more.get("from 7")).toEqual(expected.slice(7));
  });

  test("and other seeds give other tokens", () => {
    const responses = [...all.values()].flat().filter(({ token_ids }) => token_ids.length > 5);
    expect(responses.length).toBeGreaterThan(30);
    // Some are equal by chance: nano has few ways to say a thing.
    expect(new Set(responses.map(({ token_ids }) => token_ids.join())).size).toBeGreaterThan(0.8 * responses.length);
  });
});

test("one seed twice in a block is one response twice", async () => {
  const responses = await bench.sample([{ key: "k", prompt_ids: prompt(12), seeds: [7, 8, 7] }]);
  const [first, second, third] = responses.get("k") ?? [];
  expect(third).toEqual(first);
  expect(second).not.toEqual(first);
});

test("temperature 0 and top_k 1 take the most likely token, whatever the seed", async () => {
  const greedy = await bench.sample([block("k", prompt(20), 3)], { sampler: { ...SAMPLER, temperature: 0 } });
  const [first] = greedy.get("k") ?? [];
  expect(greedy.get("k")).toEqual([first, first, first]);
  expect(await bench.sample([block("k", prompt(20), 3)], { sampler: { ...SAMPLER, top_k: 1 } })).toEqual(greedy);
  const rows = await logprobs([[...prompt(20), ...(first?.token_ids ?? [])]]);
  const predicted = rows.slice(19, -1).map((row) => row.indexOf(Math.max(...row)));
  expect(predicted).toEqual(first?.token_ids);
});

test("a stop token ends a response and is left out; otherwise it ends at max_new_tokens", async () => {
  const sampler = { ...SAMPLER, temperature: 0, max_new_tokens: 9 };
  const long = await bench.sample([block("k", prompt(20), 1)], { sampler, stop_token_ids: [0] });
  const [{ token_ids = [], finish_reason } = {}] = long.get("k") ?? [];
  expect({ finish_reason, n: token_ids.length }).toEqual({ finish_reason: "length", n: 9 });
  const stop = token_ids.find((id, i) => i > 2 && token_ids.indexOf(id) === i) ?? token_ids[0] ?? 0;
  const short = await bench.sample([block("k", prompt(20), 2)], { sampler, stop_token_ids: [1, stop] });
  const expected = { token_ids: token_ids.slice(0, token_ids.indexOf(stop)), finish_reason: "stop" };
  expect(short.get("k")).toEqual([expected, expected]);
});

test("an adapter at scale 0 is the base, at scale 1 it is not", async () => {
  const gguf = await bench.adapter("scaled", 0.02);
  const at = (adapter: { gguf: string; scale: number } | null) => bench.sample([block("k", prompt(9), 8)], { adapter });
  const [base, zero, one] = [await at(null), await at({ gguf, scale: 0 }), await at({ gguf, scale: 1 })];
  expect(zero).toEqual(base);
  expect(one).not.toEqual(base);
});

test("first tokens follow the model's distribution", async () => {
  const ids = prompt(15, 3);
  const sampler = { ...SAMPLER, max_new_tokens: 1 };
  const blocks = Array.from({ length: 16 }, (_, i) => block(`${i}`, ids, 250, 250 * i));
  const responses = [...(await bench.sample(blocks, { sampler, stop_token_ids: [0] })).values()].flat();
  const counts = new Map<number, number>();
  for (const { token_ids } of responses) counts.set(token_ids[0] ?? 0, (counts.get(token_ids[0] ?? 0) ?? 0) + 1);
  const probabilities = (await logprobs([ids])).at(-1)?.map(Math.exp) ?? [];
  expect(Math.abs(chiSquareZ(probabilities, counts, responses.length))).toBeLessThan(3.5);
  const shifted = probabilities.map((_, i) => probabilities[(i + 1) % probabilities.length] ?? 0);
  expect(chiSquareZ(shifted, counts, responses.length)).toBeGreaterThan(20); // the test can fail
});

describe("a block that cannot be sampled as asked is refused", () => {
  const refusal = async (blocks: typeof BLOCKS, overrides = {}): Promise<DriverError> =>
    bench.run(bench.sampleJob(blocks, overrides)).then(
      () => expect.unreachable(),
      (error) => error,
    );

  test("when it does not fit into the context", async () => {
    const error = await refusal([block("q1/3", prompt(110), 2)]);
    expect(error.code).toBe("DATA_INVALID");
    expect(error.message).toMatchInlineSnapshot(
      `"Block q1/3 does not fit: 110 prompt tokens + 24 new tokens = 134, expected at most 128 (context_tokens 128, the model's own limit 1024)"`,
    );
  });

  test("when a seed, a token or the number of seeds is none that llama.cpp takes", () => {
    const refuse = (prompt_ids: number[], seeds: number[]) => () =>
      validateBlocks([{ key: "k", prompt_ids, seeds }], bench.sampleJob([]), { vocab_size: 400, context_tokens: 128 });
    expect(refuse([399], [0, 0xffff_fffe])).not.toThrow();
    expect(refuse([399], [0, 0xffff_ffff])).toThrowErrorMatchingInlineSnapshot(
      `[EngineFailure: Block k: expected seeds of at most 4294967294, got 4294967295]`,
    ); // it means "any seed"
    expect(refuse([1, 400], [0])).toThrowErrorMatchingInlineSnapshot(
      `[EngineFailure: Block k: token id 400 is outside the vocabulary of 400]`,
    );
    expect(refuse([1], Array(257).fill(0))).toThrowErrorMatchingInlineSnapshot(
      `[EngineFailure: Block k has 257 seeds, expected at most 256]`,
    );
  });

  test("when the adapter is missing, or is for another model", async () => {
    const missing = await refusal([block("k", [300], 1)], { adapter: { gguf: "/nowhere.gguf", scale: 1 } });
    expect([missing.code, missing.message]).toEqual(["MODEL_INVALID", "No such file: /nowhere.gguf"]);
    const other = await refusal([block("k", [300], 1)], { adapter: { gguf: bench.gguf, scale: 1 } });
    expect(other.code).toBe("MODEL_INVALID");
    expect(other.message).toContain("expect general.type to be 'adapter'");
  });
});

async function logprobs(prompts: number[][]): Promise<number[][]> {
  const { result } = await bench.run(bench.logprobsJob(prompts, { kv_type: "F16", flash_attention: true }));
  const bytes = readFileSync(result.files[0]?.path ?? "");
  const values = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
  return Array.from({ length: result.n_positions }, (_, i) => [
    ...values.subarray(i * result.vocab_size, (i + 1) * result.vocab_size),
  ]);
}

/** Standardised chi-square (Wilson-Hilferty), tokens expected fewer than 5 times pooled. */
function chiSquareZ(probabilities: number[], counts: Map<number, number>, n: number): number {
  let [square, bins, restExpected, restCount] = [0, 0, 0, 0];
  for (const [token, probability] of probabilities.entries()) {
    const [expected, count] = [probability * n, counts.get(token) ?? 0];
    if (expected < 5) [restExpected, restCount] = [restExpected + expected, restCount + count];
    else [square, bins] = [square + (count - expected) ** 2 / expected, bins + 1];
  }
  square += (restCount - restExpected) ** 2 / restExpected;
  const v = 2 / (9 * bins);
  return ((square / bins) ** (1 / 3) - (1 - v)) / Math.sqrt(v);
}
