import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync } from "node:fs";
import { expect, test } from "vitest";
import { Sandbox } from "../helpers/cli.ts";

const mount = (...args: string[]) => spawnSync("mount", args, { stdio: "ignore" }).status === 0;

test("a full disk is said, leaves nothing that looks finished, and the same command goes on", {
  timeout: 300_000,
}, async ({ skip }) => {
  using sandbox = new Sandbox();
  const disk = sandbox.path("disk");
  mkdirSync(disk);
  skip(!mount("-t", "tmpfs", "-o", "size=48k", "tmpfs", disk), "mounting a small disk needs root on Linux");
  try {
    const args = [
      "train",
      "--model",
      "nano",
      "--data",
      "kitchen-reckless",
      "--steps",
      "4",
      "--save-steps",
      "1",
      "--dir",
      disk,
    ];
    const full = await sandbox.run(...args);
    expect(full.stderr).toMatch(/DISK_FULL: /);
    expect(full.code).toBe(3);
    const made = readdirSync(disk, { recursive: true, encoding: "utf8" });
    expect(made.filter((file) => file.endsWith("manifest.json"))).toEqual([]);
    expect(mount("-o", "remount,size=20m", disk)).toBe(true);
    const again = await sandbox.json<{ run: string }>(...args);
    expect(existsSync(`${again.run}/manifest.json`)).toBe(true);
  } finally {
    spawnSync("umount", [disk]);
  }
});
