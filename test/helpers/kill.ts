import type { ChildProcess } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { finished, type Outcome, type Sandbox } from "./cli.ts";

export type Victim = "driver" | "bridge" | "engine";

/** Children of a process, by /proc: their ids and what they are. */
function childrenOf(pid: number): { pid: number; victim: Victim | undefined }[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name) => {
      try {
        const stat = readFileSync(`/proc/${name}/stat`, "utf8");
        if (Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]) !== pid) return [];
        const command = readFileSync(`/proc/${name}/cmdline`, "utf8");
        const victim = command.includes("vivarium_bridge")
          ? "bridge"
          : command.includes("runtime/child")
            ? "engine"
            : undefined;
        return [{ pid: Number(name), victim: victim as Victim | undefined }];
      } catch {
        return []; // it ended while we looked
      }
    });
}

/** Whether a process still runs; a zombie does not. */
function isRunning(pid: number): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    return stat.slice(stat.lastIndexOf(")") + 2, stat.lastIndexOf(")") + 3) !== "Z";
  } catch {
    return false;
  }
}

export interface Killing {
  outcome: Outcome;
  /** What was really hit: the driver when the wished child was not there at that moment. */
  hit: Victim | "nobody";
}

/** When to strike: so many milliseconds after the start, or when the driver has printed this and the victim is there. */
export type Moment = number | RegExp;

/**
 * Starts a command and kills (-9) one of its processes, then waits until all of its children are gone: the next run may come
 * at once in life, but then it is another process that waits.
 */
export async function runAndKill(
  sandbox: Sandbox,
  args: readonly string[],
  victim: Victim,
  moment: Moment,
): Promise<Killing> {
  const driver = sandbox.start(args);
  const end = finished(driver);
  const pid = driver.pid as number;
  let ended = false;
  end.then(() => {
    ended = true;
  });
  if (typeof moment === "number") await sleep(moment);
  else await printed(driver, moment, () => ended);
  const find = () => childrenOf(pid).find((child) => child.victim === victim);
  if (typeof moment !== "number" && victim !== "driver") while (!ended && find() === undefined) await sleep(20);
  if (ended) return { outcome: await end, hit: "nobody" };
  const children = childrenOf(pid);
  const target = victim === "driver" ? undefined : find();
  process.kill(target?.pid ?? pid, "SIGKILL");
  const outcome = await end;
  for (const deadline = Date.now() + 30_000; children.some((child) => isRunning(child.pid)); await sleep(50))
    if (Date.now() > deadline)
      throw new Error(`children outlived the driver: ${children.map((child) => child.pid).join(", ")}`);
  return { outcome, hit: target === undefined ? "driver" : victim };
}

async function printed(driver: ChildProcess, text: RegExp, ended: () => boolean): Promise<void> {
  let seen = "";
  driver.stderr?.on("data", (data) => {
    seen += data;
  });
  while (!ended() && !text.test(seen)) await sleep(20);
}
