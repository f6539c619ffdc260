import { DriverError } from "../errors.ts";
import { runCommand } from "./command.ts";

export interface Python {
  /** Absolute path of the interpreter. */
  path: string;
  /** `3.11.7` */
  version: string;
}

/** Source: `requires-python` of python-bridge/pyproject.toml. */
export const OLDEST_PYTHON_MINOR = 11;
const CANDIDATES = ["python3.13", "python3.12", "python3.11", "python3"];

/**
 * Finds a Python to build the bridge's environment with: `VIVARIUM_PYTHON_BASE` if it is set, else the newest known one
 * on the PATH.
 *
 * @throws {DriverError} `PYTHON_MISSING` saying what was looked for and what was found.
 */
export async function findPython(env: Readonly<NodeJS.ProcessEnv> = process.env): Promise<Python> {
  const wish = env.VIVARIUM_PYTHON_BASE;
  const found: string[] = [];
  for (const command of wish === undefined || wish === "" ? CANDIDATES : [wish]) {
    const python = await describePython(command);
    if (python !== undefined && isNewEnough(python.version)) return python;
    if (python !== undefined) found.push(`${command} is ${python.version}`);
  }
  throw new DriverError(
    "PYTHON_MISSING",
    `No suitable Python: expected 3.${OLDEST_PYTHON_MINOR} or later, got ${found.join(", ") || "none"}`,
    {
      hint: wish
        ? "VIVARIUM_PYTHON_BASE must name a Python interpreter; unset it to look on the PATH."
        : "Install Python 3.11 or later (e.g. `apt install python3 python3-venv`), or set VIVARIUM_PYTHON_BASE to one.",
      facts: { looked_for: wish ?? CANDIDATES },
    },
  );
}

/** A command that is not there, or is a shim without an interpreter behind it, is undefined. */
async function describePython(command: string): Promise<Python | undefined> {
  const script = "import sys; print(sys.executable); print('.'.join(map(str, sys.version_info[:3])))";
  const { code, stdout } = await runCommand(command, ["-I", "-c", script]);
  const [path, version] = stdout.split("\n");
  return code === 0 && path && version ? { path, version } : undefined;
}

function isNewEnough(version: string): boolean {
  const [major = 0, minor = 0] = version.split(".").map(Number);
  return major === 3 && minor >= OLDEST_PYTHON_MINOR;
}
