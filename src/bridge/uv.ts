import { existsSync } from "node:fs";
import { mkdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { DriverError } from "../errors.ts";
import { type CommandOptions, type CommandResult, runCommand } from "./command.ts";
import type { Python } from "./python.ts";

/** Installed when the PATH has no uv. Tested with the lock file of python-bridge. */
const UV_VERSION = "0.13.9";

/**
 * Finds uv on the PATH, or installs it into `<home>/tools/uv`.
 *
 * @throws {DriverError} `PYTHON_MISSING` when this Python cannot make an environment, `BRIDGE_NOT_INSTALLED` when uv
 *   cannot be fetched.
 */
export async function findUv(home: string, python: Python, options: CommandOptions): Promise<string> {
  if ((await runCommand("uv", ["--version"])).code === 0) return "uv";
  const folder = join(home, "tools", "uv");
  const uv = join(folder, "bin", "uv");
  if (existsSync(uv)) return uv;
  options.on_line?.(`installing uv ${UV_VERSION} into ${folder}`);
  const partial = `${folder}.part-${process.pid}`;
  await mkdir(join(home, "tools"), { recursive: true });
  try {
    await makeVenv(python, partial, options);
    const pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", `uv==${UV_VERSION}`];
    checkInstall(await runCommand(join(partial, "bin", "python"), pip, options), "uv");
    await rm(folder, { recursive: true, force: true });
    await rename(partial, folder);
  } finally {
    await rm(partial, { recursive: true, force: true });
  }
  return uv;
}

async function makeVenv(python: Python, folder: string, options: CommandOptions): Promise<void> {
  const { code, tail } = await runCommand(python.path, ["-m", "venv", folder], options);
  if (code === 0) return;
  throw new DriverError("PYTHON_MISSING", `${python.path} cannot make an environment: it lacks venv or ensurepip`, {
    hint: "Install uv (https://docs.astral.sh/uv), or the venv package of your system, e.g. `apt install python3-venv`.",
    facts: { output: tail },
  });
}

/** @throws {DriverError} `DISK_FULL` or `BRIDGE_NOT_INSTALLED` when an install command did not end with 0 */
export function checkInstall({ code, tail }: CommandResult, what: string): void {
  if (code === 0) return;
  const output = tail.join("\n");
  const full = output.includes("No space left on device");
  throw new DriverError(
    full ? "DISK_FULL" : "BRIDGE_NOT_INSTALLED",
    full ? `No space left to install ${what}` : `Cannot install ${what}: ${tail.at(-1) ?? "no output"}`,
    {
      hint: full
        ? "The Python environment needs about 6 GB in $VIVARIUM_HOME and in uv's cache."
        : "Check the network and the package index settings (UV_INDEX_URL, PIP_INDEX_URL), then run it again.",
      facts: { output: tail },
    },
  );
}
