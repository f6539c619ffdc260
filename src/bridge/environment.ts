import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { mkdir, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { lockFolder } from "../artifacts/lock.ts";
import { DriverError } from "../errors.ts";
import type { ChildCommand } from "./child.ts";
import { type CommandOptions, runCommand } from "./command.ts";
import { findPython, OLDEST_PYTHON_MINOR, type Python } from "./python.ts";
import { checkInstall, findUv } from "./uv.ts";

export { findPython, type Python } from "./python.ts";

/** The folder that holds python-bridge/: the same for src/bridge/*.ts and for dist/bridge/*.js. */
const PACKAGE_ROOT = fileURLToPath(new URL("../..", import.meta.url));
const LOCK_FILE = join(PACKAGE_ROOT, "python-bridge", "requirements.lock.txt");
const STAMP = ".vivarium-stamp";
/** Newest Python minor version for which an environment is looked for without starting an interpreter. */
const NEWEST_PYTHON_MINOR = 19;
const LOCK_POLL_MS = 500;
/** uv lists every package; sixty lines say no more than its summary. */
const PACKAGE_LINE = /^ [+~-] /;

export interface EnsureOptions {
  /** `$VIVARIUM_HOME` */
  home: string;
  /** Gets progress lines; nothing when nothing is to be done. */
  on_line: (line: string) => void;
  signal?: AbortSignal;
}

/**
 * Makes sure that the pinned Python packages are installed, in `<home>/python/<hash>/`, and returns the interpreter.
 * With an environment in place it starts no process.
 *
 * `VIVARIUM_PYTHON` names an interpreter that has everything already; then nothing is installed or checked.
 *
 * @throws {DriverError} `PYTHON_MISSING`, `BRIDGE_NOT_INSTALLED`, `DISK_FULL` or `CANCELLED`.
 */
export async function ensureBridge(options: EnsureOptions): Promise<{ python: string }> {
  const given = givenPython();
  if (given !== undefined) return { python: given };
  const parent = join(options.home, "python");
  const lock = readFileSync(LOCK_FILE);
  const ready = findEnvironment(parent, lock);
  if (ready !== undefined) return { python: ready };
  await using _lock = await waitForLock(parent, options);
  return { python: findEnvironment(parent, lock) ?? (await install(parent, lock, options)) };
}

/**
 * The interpreter that {@link ensureBridge} would return at once; undefined while nothing is installed. Only looks.
 *
 * @throws {DriverError} `PYTHON_MISSING` when `VIVARIUM_PYTHON` names what is not there.
 */
export function findBridge({ home }: { home: string }): string | undefined {
  return givenPython() ?? findEnvironment(join(home, "python"), readFileSync(LOCK_FILE));
}

/** The command line of the bridge, isolated from the user's own Python settings and from the network. */
export function bridgeCommand(python: string): Required<ChildCommand> {
  return {
    command: python,
    args: ["-m", "vivarium_bridge"],
    env: {
      PYTHONPATH: join(PACKAGE_ROOT, "python-bridge", "src"),
      PYTHONSAFEPATH: "1", // else a torch.py in the working directory would be imported
      PYTHONNOUSERSITE: "1",
      PYTHONUNBUFFERED: "1",
      PYTHONUTF8: "1",
      TOKENIZERS_PARALLELISM: "false",
      HF_HUB_OFFLINE: "1",
      TRANSFORMERS_OFFLINE: "1",
    },
  };
}

function givenPython(): string | undefined {
  const given = process.env.VIVARIUM_PYTHON;
  if (given === undefined || given === "") return undefined;
  if (!given.includes("/") || existsSync(given)) return given;
  throw new DriverError("PYTHON_MISSING", `VIVARIUM_PYTHON names ${given}, which does not exist`, {
    hint: "Unset it to let vivarium install its own environment.",
  });
}

function findEnvironment(parent: string, lock: Buffer): string | undefined {
  for (let minor = NEWEST_PYTHON_MINOR; minor >= OLDEST_PYTHON_MINOR; minor--) {
    const folder = join(parent, environmentId(lock, minor));
    const python = join(folder, "bin", "python");
    if (existsSync(join(folder, STAMP)) && existsSync(python) && fitsWish(folder)) return python;
  }
  return undefined;
}

/** An environment made from another Python than the one asked for is not used. */
function fitsWish(folder: string): boolean {
  const wish = process.env.VIVARIUM_PYTHON_BASE;
  if (wish === undefined || wish === "") return true;
  const stamp = JSON.parse(readFileSync(join(folder, STAMP), "utf8")) as { wish?: string };
  return stamp.wish === wish;
}

function environmentId(lock: Buffer, minor: number): string {
  return createHash("sha256").update(lock).update(`3.${minor}`).digest("hex").slice(0, 12);
}

async function waitForLock(parent: string, { on_line, signal }: EnsureOptions): Promise<AsyncDisposable> {
  for (let attempt = 0; ; attempt++) {
    if (signal?.aborted) throw new DriverError("CANCELLED", "Cancelled");
    try {
      return await lockFolder(parent);
    } catch (error) {
      if (!(error instanceof DriverError) || error.code !== "LOCKED") throw error;
      if (attempt === 0) on_line("waiting for another vivarium to finish installing its Python environment");
      await sleep(LOCK_POLL_MS);
    }
  }
}

async function install(parent: string, lock: Buffer, options: EnsureOptions): Promise<string> {
  const python = await findPython();
  const folder = join(parent, environmentId(lock, Number(python.version.split(".")[1])));
  const partial = `${folder}.part-${process.pid}`;
  await removeLeftovers(parent, folder);
  try {
    await fill(partial, python, options);
    await rename(partial, folder);
  } finally {
    await rm(partial, { recursive: true, force: true });
  }
  const stamp = { python: python.path, version: python.version, wish: process.env.VIVARIUM_PYTHON_BASE };
  await writeFile(join(folder, STAMP), `${JSON.stringify(stamp, null, 2)}\n`);
  return join(folder, "bin", "python");
}

async function fill(folder: string, python: Python, options: EnsureOptions): Promise<void> {
  const { on_line, signal } = options;
  const env = { UV_PYTHON_DOWNLOADS: "never", UV_NO_PROGRESS: "1" };
  const report = (line: string) => PACKAGE_LINE.test(line) || on_line(line);
  const run: CommandOptions = { env, on_line: report, ...(signal === undefined ? {} : { signal }) };
  await mkdir(join(folder, ".."), { recursive: true });
  const uv = await findUv(options.home, python, run);
  on_line(`installing torch, transformers and peft for Python ${python.version}: about 5 GB, once`);
  const venv = ["venv", "--quiet", "--relocatable", "--no-project", "--python", python.path, folder];
  checkInstall(await runCommand(uv, venv, run), "the Python environment");
  const sync = ["pip", "sync", "--require-hashes", "--python", join(folder, "bin", "python"), LOCK_FILE];
  checkInstall(await runCommand(uv, sync, run), "the Python packages");
}

/** An environment without a stamp was interrupted; under the lock nobody else is at work on one. */
async function removeLeftovers(parent: string, folder: string): Promise<void> {
  const partials = readdirSync(parent).filter((name) => name.includes(".part-"));
  for (const path of [folder, ...partials.map((name) => join(parent, name))])
    await rm(path, { recursive: true, force: true });
}

/** sha256 of the lock file: names the versions of everything that trains and scores. */
export function bridgeDigest(): string {
  return createHash("sha256").update(readFileSync(LOCK_FILE)).digest("hex");
}
