import { readdirSync, readFileSync } from "node:fs";
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

/**
 * Starts a command and kills (-9) one of its processes after a while, then waits until all of its children are gone:
 * a child that outlives its driver would write into folders that the next run owns.
 */
export async function runAndKill(
  sandbox: Sandbox,
  args: readonly string[],
  victim: Victim,
  after_ms: number,
): Promise<Killing> {
  const driver = sandbox.start(args);
  const end = finished(driver);
  const pid = driver.pid as number;
  const ended = await Promise.race([
    end.then(() => true),
    new Promise<false>((wake) => setTimeout(() => wake(false), after_ms)),
  ]);
  if (ended) return { outcome: await end, hit: "nobody" };
  const children = childrenOf(pid);
  const target = children.find((child) => child.victim === victim);
  const hit: Victim = victim === "driver" || target === undefined ? "driver" : victim;
  process.kill(target === undefined || victim === "driver" ? pid : target.pid, "SIGKILL");
  const outcome = await end;
  for (const deadline = Date.now() + 30_000; children.some((child) => isRunning(child.pid)); ) {
    if (Date.now() > deadline)
      throw new Error(`children outlived the driver: ${children.map((child) => child.pid).join(", ")}`);
    await new Promise((wake) => setTimeout(wake, 50));
  }
  return { outcome, hit };
}
