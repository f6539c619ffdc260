import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { describe, expect, test } from "vitest";
import { headShare, QWEN25_14B, SIZES } from "../../../bench/train/sizes.ts";
import { maxDifference, median, ratio, sumEpochs } from "../../../bench/train/statistics.ts";

const ROOT = resolve(import.meta.dirname, "../../..");
const lock = (path: string) => readFileSync(resolve(ROOT, path), "utf8");

/** `name ; marker` to version. */
function pins(text: string): Map<string, string> {
  const lines = text.matchAll(/^([a-z0-9-]+)==([^ ]+)( ; [^\\]+)? \\$/gm);
  return new Map(
    [...lines].map(([, name, version, marker]) => [`${name}${marker?.trimEnd() ?? ""}`, version as string]),
  );
}

describe("the benchmark's lock file", () => {
  const bench = pins(lock("bench/train/requirements.lock.txt"));
  const bridge = pins(lock("python-bridge/requirements.lock.txt"));

  test("has the bridge's versions", () => {
    const differing = [...bench].filter(([name, version]) => bridge.has(name) && bridge.get(name) !== version);
    expect(differing).toEqual([]);
    for (const name of ["torch", "transformers", "peft", "tokenizers", "numpy"])
      expect(bench.get(name)).toBe(bridge.get(name));
    expect(bench.get("trl")).toBe("1.16.0");
  });

  test("names no host", () => {
    expect(lock("bench/train/requirements.lock.txt")).not.toContain("://");
  });
});

describe("the benchmark's shapes", () => {
  test("lm_head has 5.6 % of Qwen2.5-14B's matrix weights", () => {
    expect(headShare(QWEN25_14B)).toBeCloseTo(0.05565, 5);
  });

  test.each(Object.entries(SIZES))("%s gives lm_head the same part", (_, { shape }) => {
    expect(headShare(shape)).toBeCloseTo(headShare(QWEN25_14B), 3);
  });
});

describe("the benchmark's statistics", () => {
  test("a ratio is taken within each round", () => {
    expect(ratio([10, 20, 90], [5, 5, 30])).toEqual({ median: 3, min: 2, max: 4, rounds: 3 });
    expect(() => ratio([1, 2], [1])).toThrow("expected as many rounds on both sides, got 2 and 1");
  });

  test("the median of an even number of values is the mean of the middle two", () => {
    expect(median([4, 1, 3, 2])).toBe(2.5);
    expect(() => median([])).toThrow("the median of nothing");
  });

  test("the same step of each epoch is added up", () => {
    expect(sumEpochs([1, 2, 10, 20, 100, 200], 2)).toEqual([111, 222]);
  });

  test("losses differ by their largest distance", () => {
    expect(maxDifference([1, 2, 3], [1, 2.5, 2.75])).toBe(0.5);
    expect(() => maxDifference([1, 2], [1])).toThrow("no value at 1 of 1");
  });
});
