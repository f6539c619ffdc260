import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

/** How to start the engine: the driver spawns it and never loads llama.cpp itself. */
export interface EngineCommand {
  command: string;
  args: string[];
  /** Added to the driver's own environment. */
  env: Record<string, string>;
}

/**
 * The command of the engine process, which lies beside this file: `child.js` once built, `child.ts` through tsx before.
 *
 * One libuv thread: with the default of four, decode calls hop between threads and a two-thread context slows down by
 * a factor of three to six. Sampling then runs on that one thread, which a vocabulary of 2,000 does not notice.
 */
export function engineCommand(): EngineCommand {
  const here = fileURLToPath(import.meta.url);
  const env = { UV_THREADPOOL_SIZE: "1" };
  if (here.endsWith(".js")) return { command: process.execPath, args: [join(dirname(here), "child.js")], env };
  const loader = pathToFileURL(createRequire(import.meta.url).resolve("tsx")).href;
  return { command: process.execPath, args: ["--import", loader, join(dirname(here), "child.ts")], env };
}

/** Release of node-llama-cpp, which fixes the release of llama.cpp in it. Read from its package without loading it. */
export function engineVersion(): string {
  const manifest = new URL("../package.json", import.meta.resolve("node-llama-cpp"));
  return (JSON.parse(readFileSync(manifest, "utf8")) as { version: string }).version;
}
