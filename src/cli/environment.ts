import { accessSync, constants, existsSync, readFileSync, statSync } from "node:fs";
import { availableParallelism, homedir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { HashCache } from "../artifacts/hash.ts";
import { bridgeDigest, ensureBridge } from "../bridge/environment.ts";
import { computeCapability, listGpus } from "../bridge/machine.ts";
import { codeRevision } from "../bridge/revision.ts";
import { DriverError } from "../errors.ts";
import type { CacheWish } from "../phases/train/cohorts.ts";
import type { StagedModel } from "../pipeline/handles.ts";
import { Library } from "../pipeline/library.ts";
import type { Workspace } from "../pipeline/workspace.ts";
import { engineVersion } from "../runtime/command.ts";
import type { Io } from "./io.ts";

/** Folder of the installed package: two above `src/cli` and `dist/cli` alike. */
export const PACKAGE_ROOT = resolve(dirname(fileURLToPath(import.meta.url)), "../..");

/** Bases below this size leave cores idle when one unit runs alone, so units run side by side with one thread each. */
const SMALL_BASE_BYTES = 200e6;
const MOST_JOBS = 4;

export function vivariumHome(): string {
  return resolve(process.env.VIVARIUM_HOME || join(homedir(), ".cache", "vivarium"));
}

export function packageVersion(): string {
  return (JSON.parse(readFileSync(join(PACKAGE_ROOT, "package.json"), "utf8")) as { version: string }).version;
}

export function makeLibrary(): Library {
  const hub = process.env.HF_HUB_CACHE ?? join(process.env.HF_HOME ?? join(homedir(), ".cache", "huggingface"), "hub");
  return new Library(PACKAGE_ROOT, process.cwd(), hub);
}

/**
 * Whether llama.cpp shall use a GPU. Off unless asked for: `npm ci` brings a CPU build alone, and the same seed gives
 * other responses on another device.
 *
 * @throws {DriverError} `CONFIG_INVALID` for a value other than `on` and `off`: a typo would sample on the CPU for hours.
 */
export function gpuWish(): boolean {
  const wish = process.env.VIVARIUM_GPU || "off";
  if (wish === "on" || wish === "off") return wish === "on";
  throw new DriverError("CONFIG_INVALID", `VIVARIUM_GPU: expected on, off or nothing, got ${JSON.stringify(wish)}`, {
    hint: "Set it to on to sample with a GPU build of llama.cpp, or unset it.",
  });
}

/** @param folder where `runs/` and `evals/` lie. */
export async function makeWorkspace(folder: string, io: Io): Promise<Workspace & { num_threads: number }> {
  checkFolder(folder);
  const home = vivariumHome();
  const cuda = (await listGpus()).length > 0 && process.env.CUDA_VISIBLE_DEVICES !== "";
  let python: Promise<string> | undefined;
  return {
    home,
    runs_dir: resolve(folder, "runs"),
    evals_dir: resolve(folder, "evals"),
    hashes: new HashCache(join(home, "hashes.jsonl")),
    code: await codeRevision(PACKAGE_ROOT, packageVersion()),
    num_threads: io.options.threads ?? availableParallelism(),
    cuda,
    compute_capability: cuda ? await computeCapability() : null,
    gpu: gpuWish(),
    engine: `node-llama-cpp ${engineVersion()}, gpu ${gpuWish() ? "on" : "off"}`,
    bridge: bridgeDigest(),
    python: () => {
      python ??= ensureBridge({ home, on_line: (line) => io.note(line), signal: io.signal }).then(
        (found) => found.python,
      );
      return python;
    },
  };
}

/** How many units run side by side, and sets the threads of each: what the user said, else by the size of the base. */
export function chooseJobs(staged: StagedModel, workspace: Workspace & { num_threads: number }, io: Io): number {
  const bytes = staged.files.reduce((sum, file) => sum + file.bytes, 0);
  const small = bytes < SMALL_BASE_BYTES;
  const jobs = io.options.jobs ?? (small ? Math.min(MOST_JOBS, availableParallelism()) : 1);
  workspace.num_threads = io.options.threads ?? (small ? 1 : Math.max(1, Math.floor(availableParallelism() / jobs)));
  return jobs;
}

/**
 * Refuses a place for results that cannot take any, before anything is begun.
 *
 * @throws {DriverError} `NOT_FOUND` for a file, `NOT_WRITABLE` for a folder without the right to write or on a read-only disk.
 */
function checkFolder(folder: string): void {
  let place = resolve(folder);
  if (statSync(place, { throwIfNoEntry: false })?.isFile())
    throw new DriverError("NOT_FOUND", `--dir ${folder}: expected a folder, got a file`);
  while (!existsSync(place)) place = dirname(place);
  try {
    accessSync(place, constants.W_OK);
    if (/^\/(proc|sys)(\/|$)/.test(place)) throw new Error("it holds no files");
  } catch (cause) {
    throw new DriverError("NOT_WRITABLE", `--dir ${folder}: expected a folder that can be written, got ${place}`, {
      hint: "Name another folder, or ask for the right to write there.",
      cause,
    });
  }
}

export interface CacheFlags {
  prefixCache?: CacheWish["mode"];
  prefixCacheGb?: number;
}

const DEFAULT_PREFIX_CACHE_GB = 8;

/** What the flags say about the prefix cache. */
export function cacheWish(flags: CacheFlags, workspace: Workspace): CacheWish {
  return {
    mode: flags.prefixCache ?? "auto",
    max_bytes: Math.floor((flags.prefixCacheGb ?? DEFAULT_PREFIX_CACHE_GB) * 1e9),
    dir: join(workspace.home, "prefix"),
  };
}
