import { randomBytes } from "node:crypto";
import { mkdir, open, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { DriverError } from "../errors.ts";

/** Turns what the operating system says of a full disk into one error; anything else is returned as it came. */
export function diskError(cause: unknown, path: string): unknown {
  const code = (cause as NodeJS.ErrnoException | undefined)?.code;
  if (code !== "ENOSPC" && code !== "EDQUOT") return cause;
  return new DriverError("DISK_FULL", `Cannot write ${path}: expected free space, got a full disk`, {
    hint: "Free some space and run the same command again; finished work is kept.",
    facts: { path },
    cause,
  });
}

/**
 * Writes a whole file so that a reader sees the old one or the new one, never half of it.
 *
 * @throws {DriverError} `DISK_FULL`; the old file is untouched and the temporary one removed.
 */
export async function writeFileAtomic(path: string, data: string | Uint8Array): Promise<void> {
  const temporary = `${path}.part-${process.pid}-${randomBytes(4).toString("hex")}`;
  try {
    await mkdir(dirname(path), { recursive: true });
    const file = await open(temporary, "wx");
    try {
      await file.writeFile(data);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (cause) {
    await rm(temporary, { force: true });
    throw diskError(cause, path);
  }
}

/** `value` as indented JSON with a final newline, written atomically. */
export function writeJsonAtomic(path: string, value: unknown): Promise<void> {
  return writeFileAtomic(path, `${JSON.stringify(value, null, 2)}\n`);
}
