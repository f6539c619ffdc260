import { describe, expect, test } from "vitest";
import { listGpus } from "../../src/bridge/machine.ts";
import type { SelfTestRow } from "../../src/phases/train/self-test.ts";
import { Sandbox } from "../helpers/cli.ts";

const gpus = await listGpus();

describe("on a GPU", () => {
  test("training gives the losses and the adapter of the CPU, and says how fast it was", async ({ skip }) => {
    skip(gpus.length === 0, "needs an NVIDIA GPU");
    using sandbox = new Sandbox();
    const { self_test } = await sandbox.json<{ self_test: SelfTestRow[] }>("doctor", "--self-test");
    const cuda = self_test.filter(({ device }) => device.startsWith("cuda"));
    expect(cuda.length).toBeGreaterThanOrEqual(4);
    expect(self_test.filter(({ passed }) => !passed)).toEqual([]);
    expect(cuda.every(({ peak_memory_bytes }) => peak_memory_bytes > 0)).toBe(true);
  });
});
