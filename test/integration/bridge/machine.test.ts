import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, test, vi } from "vitest";
import { computeCapability } from "../../../src/bridge/machine.ts";

const folder = mkdtempSync(join(tmpdir(), "vivarium-machine-"));

afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(join(folder, "nvidia-smi"), { force: true });
});

test.skipIf(process.platform === "win32").each([
  ["echo 8.0; echo 9.0", 8],
  ["echo '[N/A]'", null],
  ["exit 9", null],
])("compute capability from a driver that does %s: %s", async (script, expected) => {
  writeFileSync(join(folder, "nvidia-smi"), `#!/bin/sh\n${script}\n`);
  chmodSync(join(folder, "nvidia-smi"), 0o755);
  vi.stubEnv("PATH", `${folder}:${process.env.PATH}`);
  expect(await computeCapability()).toBe(expected);
});

test("without a driver nothing is known", async () => {
  vi.stubEnv("PATH", folder);
  expect(await computeCapability()).toBeNull();
});
