import { existsSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { Sandbox } from "../helpers/cli.ts";
import { comparableResults, writeSmallExperiment } from "../helpers/experiment.ts";
import { runAndKill, type Victim } from "../helpers/kill.ts";

const linux = existsSync("/proc/self/stat");

describe("kill -9 anywhere, run again: the same result as undisturbed", { timeout: 600_000 }, () => {
  test("driver, bridge and engine, one after the other in one experiment", async ({ skip }) => {
    skip(!linux, "finds the processes to kill through /proc");
    using calm = new Sandbox();
    using rough = new Sandbox();
    const undisturbed = await calm.run("run", writeSmallExperiment(calm));
    expect(undisturbed.code, undisturbed.stderr).toBe(0);
    const args = ["run", writeSmallExperiment(rough)];
    const wishes: [Victim, RegExp][] = [
      ["bridge", />.*train organism/],
      ["driver", />.*parity small/],
      ["engine", />.*sample organism:/],
    ];
    for (const [victim, moment] of wishes) {
      const { outcome, hit } = await runAndKill(rough, args, victim, moment);
      expect(hit).toBe(victim);
      if (victim !== "driver") expect(outcome.code).toBe(1);
      if (victim !== "driver") expect(outcome.stderr).toContain("BRIDGE_CRASHED");
    }
    const last = await rough.run(...args);
    expect(last.code, last.stderr).toBe(0);
    expect(comparableResults(rough)).toEqual(comparableResults(calm));
  });

  test("Ctrl-C stops in order, with 130, and the next run goes on", async () => {
    using sandbox = new Sandbox();
    const child = sandbox.start(["run", writeSmallExperiment(sandbox)]);
    let stderr = "";
    child.stderr?.on("data", (data) => {
      stderr += data;
      if (String(data).includes("> train organism")) child.kill("SIGINT");
    });
    const code = await new Promise((done) => child.once("close", done));
    expect(code, stderr).toBe(130);
    expect(stderr).toContain("CANCELLED: Cancelled; finished work is kept");
    const again = await sandbox.run("run", sandbox.path("small-10.yaml"));
    expect(again.code, again.stderr).toBe(0);
    expect(again.stderr).toMatch(/done already: stage nano/);
  });
});
