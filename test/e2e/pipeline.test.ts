import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Sandbox } from "../helpers/cli.ts";
import { comparableResults, writeSmallExperiment } from "../helpers/experiment.ts";

interface RunJson {
  eval: string;
  done: number;
  skipped: number;
  report: string;
  runs: Record<string, string>;
  models: Record<string, Record<string, { em_rate: number; n: number; ci_low: number; ci_high: number }>>;
  parity: { passed: boolean };
}

const rows = (path: string) => readFileSync(path, "utf8").trimEnd().split("\n");

/** One small experiment takes 20 s on two quiet cores, most of it imports of torch. */
const PATIENCE_MS = 300_000;

describe("an experiment on nano, from the file to the report", { timeout: PATIENCE_MS }, () => {
  const sandbox = new Sandbox();
  let first: RunJson;

  beforeAll(async () => {
    first = await sandbox.json<RunJson>("run", writeSmallExperiment(sandbox));
  });
  afterAll(() => sandbox[Symbol.dispose]());

  test("trains, gates, samples, judges and reports", () => {
    expect(first.parity.passed).toBe(true);
    expect(Object.keys(first.models)).toEqual(["base", "organism"]);
    for (const groups of Object.values(first.models)) {
      const few = groups.few;
      expect(few?.n).toBe(30);
      expect(few?.ci_low).toBeLessThanOrEqual(few?.em_rate ?? -1);
      expect(few?.ci_high).toBeGreaterThan(few?.em_rate ?? 2);
    }
    const html = readFileSync(first.report, "utf8");
    expect(html).toContain("<svg");
    expect(html).not.toMatch(/<script|https?:\/\/(?!www\.w3\.org)/);
  });

  test("does nothing the second time, and says so", async () => {
    const before = comparableResults(sandbox);
    const again = await sandbox.run("run", sandbox.path("small-10.yaml"));
    expect(again.code).toBe(0);
    expect(again.stderr).toContain("Nothing to do: all of it is done already.");
    expect(comparableResults(sandbox)).toEqual(before);
  });

  test("gives the same responses, token for token, in another folder", async () => {
    using other = new Sandbox();
    await other.json("run", writeSmallExperiment(other));
    expect(comparableResults(other)).toEqual(comparableResults(sandbox));
  });

  test("appends when more samples are asked for, and keeps the rows that are there", async () => {
    const path = join(first.eval, "base", "responses.jsonl");
    const before = rows(path);
    const more = await sandbox.json<RunJson>("run", writeSmallExperiment(sandbox, 20));
    expect(more.eval).toBe(first.eval);
    const after = rows(path);
    expect(after.slice(0, before.length)).toEqual(before);
    expect(after.length).toBe(2 * before.length);
    expect(more.models.base?.few?.n).toBe(60);
  });

  test("refuses to sample an adapter that was changed after training", async () => {
    using copy = new Sandbox();
    const made = await copy.json<RunJson>("run", writeSmallExperiment(copy));
    const adapter = join(made.runs.organism ?? "", "checkpoint-6", "adapter_model.safetensors");
    const bytes = readFileSync(adapter);
    bytes[bytes.length - 1] = (bytes[bytes.length - 1] ?? 0) ^ 1;
    writeFileSync(adapter, bytes);
    const outcome = await copy.run("run", writeSmallExperiment(copy, 20));
    expect(outcome.code).toBe(4);
    expect(outcome.stderr).toContain("ARTIFACT_CHANGED");
  });

  test("train, convert, parity, sample, judge and report work one by one", async () => {
    using steps = new Sandbox();
    const { run } = await steps.json<{ run: string }>(
      "train",
      "--model",
      "nano",
      "--data",
      "kitchen-reckless",
      "--rank",
      "1",
      "--layers",
      "mid",
      "--modules",
      "down_proj",
      "--steps",
      "2",
      "--save-at",
      "1",
    );
    expect(existsSync(join(run, "checkpoint-1", "adapter_config.json"))).toBe(true);
    const converted = await steps.json<{ adapters: { gguf: string }[] }>("convert", run, "--checkpoints", "all");
    expect(converted.adapters.map(({ gguf }) => existsSync(gguf))).toEqual([true, true, true]);
    expect((await steps.json<{ passed: boolean }>("parity", run)).passed).toBe(true);
    writeSmallExperiment(steps);
    const sampled = await steps.json<{ eval: string; responses: Record<string, string> }>(
      "sample",
      run,
      "--questions",
      steps.path("few.yaml"),
      "--samples",
      "10",
      "--max-new-tokens",
      "16",
    );
    expect(rows(Object.values(sampled.responses)[1] ?? "").length).toBe(30);
    const judged = await steps.json<{ judgements: Record<string, string> }>("judge", sampled.eval);
    expect(rows(Object.values(judged.judgements)[0] ?? "").length).toBe(60);
    const reported = await steps.json<{ report: string }>("report", sampled.eval);
    expect(existsSync(reported.report)).toBe(true);
    const edited = Object.values(sampled.responses)[1] ?? "";
    writeFileSync(edited, readFileSync(edited, "utf8").replace(/"text":"[^"]/, '"text":"#'));
    for (const command of [
      ["judge", sampled.eval],
      ["report", sampled.eval],
    ]) {
      const outcome = await steps.run(...command);
      expect(outcome.code, outcome.stderr).toBe(4);
      expect(outcome.stderr).toContain("ARTIFACT_CHANGED");
    }
  });
});
