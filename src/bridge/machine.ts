import { execFile } from "node:child_process";
import { promisify } from "node:util";

const run = promisify(execFile);

/** NVIDIA GPUs as the driver names them, e.g. `NVIDIA H100 80GB HBM3, 81559 MiB, 580.159`; empty without a driver. */
export async function listGpus(): Promise<string[]> {
  try {
    const { stdout } = await run("nvidia-smi", [
      "--query-gpu=name,memory.total,driver_version",
      "--format=csv,noheader",
    ]);
    return stdout.split("\n").filter((line) => line.trim() !== "");
  } catch {
    return [];
  }
}

/** Compute capability of the first NVIDIA GPU, e.g. 9; null without a driver, or with one that does not tell it. */
export async function computeCapability(): Promise<number | null> {
  try {
    const { stdout } = await run("nvidia-smi", ["--query-gpu=compute_cap", "--format=csv,noheader"]);
    const found = Number.parseFloat(stdout);
    return Number.isFinite(found) ? found : null;
  } catch {
    return null;
  }
}
