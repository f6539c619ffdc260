import { openSync, readSync, statSync } from "node:fs";
import { DriverError } from "../errors.ts";

/**
 * Opens a regular file for reading and returns its descriptor.
 *
 * @throws DriverError NOT_FOUND when there is none; a folder or a pipe counts as none, since a pipe would block.
 */
export function openFile(file: string): number {
  try {
    if (statSync(file).isFile()) return openSync(file, "r");
  } catch (cause) {
    throw new DriverError("NOT_FOUND", `Cannot open ${file}: ${(cause as Error).message}`, { cause, facts: { file } });
  }
  throw new DriverError("NOT_FOUND", `Cannot open ${file}: expected a file, got a folder or a device`, {
    facts: { file },
  });
}

/** Fills the buffer from byte `start` of the file; returns fewer bytes than it holds when the file ends before. */
export function readFully(fd: number, into: Buffer, start: number): number {
  let done = 0;
  while (done < into.length) {
    const n = readSync(fd, into, done, into.length - done, start + done);
    if (n === 0) break;
    done += n;
  }
  return done;
}
