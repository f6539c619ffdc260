/** Installs the Python environment: progress on stderr, the interpreter's path on stdout. Run by scripts/bootstrap.mjs. */
import { homedir } from "node:os";
import { join } from "node:path";
import { DriverError, ERROR_CODES } from "../errors.ts";
import { ensureBridge } from "./environment.ts";

async function main(): Promise<number> {
  const home = process.env.VIVARIUM_HOME || join(homedir(), ".cache", "vivarium");
  try {
    const { python } = await ensureBridge({ home, on_line: (line) => process.stderr.write(`python: ${line}\n`) });
    process.stdout.write(`${python}\n`);
    return 0;
  } catch (error) {
    if (!(error instanceof DriverError)) throw error;
    process.stderr.write(`${error.code}: ${error.message}\n${error.hint ? `Hint: ${error.hint}\n` : ""}`);
    return ERROR_CODES[error.code].exit;
  }
}

process.exitCode = await main();
