import { link, mkdir, open, readFile, rename, rm } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { z } from "zod";
import { DriverError } from "../errors.ts";
import { diskError } from "./atomic.ts";

const Owner = z.strictObject({ pid: z.int(), host: z.string(), started: z.string() });
type Owner = z.output<typeof Owner>;

/**
 * Takes the one right to write into a folder until it is disposed. A lock whose process is gone is taken over.
 *
 * @throws {DriverError} `LOCKED` naming the process that holds it.
 */
export async function lockFolder(dir: string): Promise<AsyncDisposable> {
  await mkdir(dir, { recursive: true });
  const path = join(dir, ".lock");
  for (;;) {
    if (await createLock(path)) return { [Symbol.asyncDispose]: () => rm(path, { force: true }) };
    const owner = await readOwner(path);
    if (owner === "gone") continue;
    if (owner !== "broken" && (await isAlive(owner))) throw locked(dir, owner);
    await removeStale(path, owner);
  }
}

async function createLock(path: string): Promise<boolean> {
  try {
    const file = await open(path, "wx");
    try {
      const owner: Owner = { pid: process.pid, host: hostname(), started: await startTime(process.pid) };
      await file.writeFile(JSON.stringify(owner));
    } finally {
      await file.close();
    }
    return true;
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw diskError(cause, path);
  }
}

async function readOwner(path: string): Promise<Owner | "gone" | "broken"> {
  for (let attempt = 0; attempt < 20; attempt++) {
    const text = await readFile(path, "utf8").catch(() => undefined);
    if (text === undefined) return "gone";
    try {
      return Owner.parse(JSON.parse(text));
    } catch {
      await new Promise((wake) => setTimeout(wake, 10)); // its owner may be between creating and filling it
    }
  }
  return "broken";
}

async function isAlive(owner: Owner): Promise<boolean> {
  if (owner.host !== hostname()) return true; // cannot be known from here; a shared disk is respected
  try {
    process.kill(owner.pid, 0);
  } catch (cause) {
    return (cause as NodeJS.ErrnoException).code === "EPERM";
  }
  return owner.started === "" || owner.started === (await startTime(owner.pid)); // else the pid was given out again
}

/** Start time of a process in clock ticks since boot (field 22 of /proc/PID/stat); empty where there is no /proc. */
async function startTime(pid: number): Promise<string> {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
  return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19] ?? "";
}

/** Moves a dead lock aside. If another process was quicker and the lock is a new one by now, it is put back. */
async function removeStale(path: string, stale: Owner | "broken"): Promise<void> {
  const aside = `${path}.stale-${process.pid}-${Date.now()}`;
  await rename(path, aside).catch(() => {});
  const moved = await readOwner(aside);
  if (moved !== "gone" && JSON.stringify(moved) !== JSON.stringify(stale)) await link(aside, path).catch(() => {});
  await rm(aside, { force: true });
}

function locked(dir: string, owner: Owner): DriverError {
  return new DriverError("LOCKED", `Cannot write ${dir}: process ${owner.pid} on ${owner.host} is writing it`, {
    hint: `Wait for it or stop it. If no such process exists on ${owner.host}, remove ${join(dir, ".lock")}.`,
    facts: { dir, pid: owner.pid, host: owner.host },
  });
}
