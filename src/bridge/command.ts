import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";
import { DriverError } from "../errors.ts";

/** What is kept of a command's output for an error. */
const TAIL_LINES = 15;

export interface CommandOptions {
  env?: Readonly<Record<string, string>>;
  on_line?: (line: string) => void;
  signal?: AbortSignal;
}

export interface CommandResult {
  /** Null when the command could not be started or was killed. */
  code: number | null;
  stdout: string;
  /** The last lines of both streams. */
  tail: string[];
}

/**
 * Runs a command to its end and passes on its lines. Not finding it, and exit codes above 0, are results.
 *
 * @throws {DriverError} `CANCELLED` after `signal`.
 */
export async function runCommand(
  command: string,
  args: readonly string[],
  { env, on_line, signal }: CommandOptions = {},
): Promise<CommandResult> {
  const child = spawn(command, args, {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, ...env },
    ...(signal === undefined ? {} : { signal }),
  });
  const stdout: string[] = [];
  const tail: string[] = [];
  const follow = (stream: Readable, lines?: string[]) =>
    createInterface({ input: stream }).on("line", (line) => {
      lines?.push(line);
      tail.push(line);
      if (tail.length > TAIL_LINES) tail.shift();
      on_line?.(line);
    });
  follow(child.stdout, stdout);
  follow(child.stderr);
  const code = await new Promise<number | null>((resolve) => {
    child.once("error", () => resolve(null));
    child.once("close", resolve);
  });
  if (signal?.aborted) throw new DriverError("CANCELLED", "Cancelled");
  return { code, stdout: stdout.join("\n"), tail };
}
