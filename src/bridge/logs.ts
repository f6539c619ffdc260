import { closeSync, fstatSync, mkdirSync, mkdtempSync, openSync, readSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { diskError } from "../artifacts/atomic.ts";

/** What a failed child's last words are cut to: enough for a traceback, little enough for a terminal. */
const TAIL_LINES = 40;
const TAIL_BYTES = 16 * 1024;

/** The two files that a child's stdout and stderr go to. */
export interface ChildLogs {
  /** Descriptors to hand to the child; the driver's copies are closed by `close`. */
  readonly stdio: readonly [stdout: number, stderr: number];
  /** Path of the stderr log, or undefined when it is a temporary file. */
  readonly stderr_path: string | undefined;
  /** The last lines of stderr that this child wrote. */
  stderrTail(): string[];
  close(): void;
}

/**
 * Opens `<dir>/<name>.stdout.log` and `.stderr.log` for appending, or temporary files when no folder is given.
 *
 * The child gets the files themselves, not pipes: nothing that it prints can block it, and it can still write when the
 * driver is dead.
 *
 * @throws {DriverError} `DISK_FULL`
 */
export function openLogs(dir: string | undefined, name: string): ChildLogs {
  try {
    return open(dir, name);
  } catch (cause) {
    throw diskError(cause, dir ?? tmpdir());
  }
}

function open(dir: string | undefined, name: string): ChildLogs {
  const folder = dir ?? mkdtempSync(join(tmpdir(), "vivarium-"));
  mkdirSync(folder, { recursive: true });
  const stderr_path = join(folder, `${name}.stderr.log`);
  const stdout = openSync(join(folder, `${name}.stdout.log`), "a");
  const stderr = openSync(stderr_path, "a+");
  const start = fstatSync(stderr).size;
  return {
    stdio: [stdout, stderr],
    stderr_path: dir === undefined ? undefined : stderr_path,
    stderrTail: () => readTail(stderr, start),
    close() {
      closeSync(stdout);
      closeSync(stderr);
      if (dir === undefined) rmSync(folder, { recursive: true, force: true });
    },
  };
}

function readTail(descriptor: number, start: number): string[] {
  const end = fstatSync(descriptor).size;
  const from = Math.max(start, end - TAIL_BYTES);
  const buffer = Buffer.alloc(end - from);
  const bytes = readSync(descriptor, buffer, 0, buffer.length, from);
  return buffer.toString("utf8", 0, bytes).trimEnd().split("\n").filter(Boolean).slice(-TAIL_LINES);
}
