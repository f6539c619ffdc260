import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { lockFolder } from "../../src/artifacts/lock.ts";
import { runCommand } from "../../src/bridge/command.ts";
import { findPython, type Python } from "../../src/bridge/python.ts";
import { checkInstall, findUv } from "../../src/bridge/uv.ts";

const LOCK_FILE = fileURLToPath(new URL("requirements.lock.txt", import.meta.url));
const STAMP = ".vivarium-stamp";

/**
 * Installs TRL beside the bridge's own pins into `<home>/bench/<hash>/`, once, and returns the interpreter.
 *
 * @throws {DriverError} `PYTHON_MISSING`, `BRIDGE_NOT_INSTALLED`, `DISK_FULL`, or `LOCKED` while another one installs it
 */
export async function ensureEnvironment(home: string, say: (line: string) => void): Promise<string> {
  const python = await findPython();
  const parent = join(home, "bench");
  const id = createHash("sha256").update(readFileSync(LOCK_FILE)).update(python.version).digest("hex").slice(0, 12);
  const folder = join(parent, id);
  const installed = join(folder, "bin", "python");
  if (existsSync(join(folder, STAMP))) return installed;
  await using _lock = await lockFolder(parent);
  const partial = `${folder}.part-${process.pid}`;
  try {
    await fill(partial, home, python, say);
    await rm(folder, { recursive: true, force: true });
    await rename(partial, folder);
  } finally {
    await rm(partial, { recursive: true, force: true });
  }
  await writeFile(join(folder, STAMP), `${python.version}\n`);
  return installed;
}

async function fill(folder: string, home: string, python: Python, say: (line: string) => void): Promise<void> {
  const options = { env: { UV_PYTHON_DOWNLOADS: "never", UV_NO_PROGRESS: "1" } };
  const uv = await findUv(home, python, { ...options, on_line: say });
  say(`installing TRL and the bridge's packages for Python ${python.version}: about 6 GB, once`);
  const venv = ["venv", "--quiet", "--relocatable", "--no-project", "--python", python.path, folder];
  checkInstall(await runCommand(uv, venv, options), "the benchmark's Python environment");
  const sync = ["pip", "sync", "--quiet", "--require-hashes", "--python", join(folder, "bin", "python"), LOCK_FILE];
  checkInstall(await runCommand(uv, sync, options), "the benchmark's Python packages");
}
