import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

export const ROOT = resolve(import.meta.dirname, "../..");
const MAIN = join(ROOT, "dist", "cli", "main.js");

export interface Outcome {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
  seconds: number;
}

/** A folder with its own `$VIVARIUM_HOME` in which the built command runs. Removed when disposed. */
export class Sandbox implements Disposable {
  readonly dir = mkdtempSync(join(tmpdir(), "vivarium-test-"));

  get env(): NodeJS.ProcessEnv {
    return { ...process.env, VIVARIUM_HOME: join(this.dir, "home"), NO_COLOR: "1", FORCE_COLOR: undefined };
  }

  path(...parts: string[]): string {
    return join(this.dir, ...parts);
  }

  start(args: readonly string[]): ChildProcess {
    return spawn(process.execPath, [MAIN, ...args], {
      cwd: this.dir,
      env: this.env,
      stdio: ["ignore", "pipe", "pipe"],
    });
  }

  /** Runs `vivarium ARGS` to its end. */
  run(...args: string[]): Promise<Outcome> {
    return finished(this.start(args));
  }

  /** The same with `--json`, parsed. Fails loudly when the command does. */
  async json<T = Record<string, unknown>>(...args: string[]): Promise<T> {
    const outcome = await this.run(...args, "--json");
    if (outcome.code !== 0)
      throw new Error(`vivarium ${args.join(" ")} ended with ${outcome.code}:\n${outcome.stderr}`);
    return JSON.parse(outcome.stdout) as T;
  }

  [Symbol.dispose](): void {
    rmSync(this.dir, { recursive: true, force: true });
  }
}

export function finished(child: ChildProcess): Promise<Outcome> {
  const started = performance.now();
  let stdout = "";
  let stderr = "";
  child.stdout?.on("data", (data) => {
    stdout += data;
  });
  child.stderr?.on("data", (data) => {
    stderr += data;
  });
  return new Promise((done, failed) => {
    child.once("error", failed);
    child.once("close", (code, signal) =>
      done({ code, signal, stdout, stderr, seconds: (performance.now() - started) / 1000 }),
    );
  });
}
