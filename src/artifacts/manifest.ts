import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { DriverError } from "../errors.ts";
import { type FileEntry, Manifest } from "../records/manifest.ts";
import { writeJsonAtomic } from "./atomic.ts";
import { sha256File } from "./hash.ts";

/**
 * The manifest at `path`, or undefined where the folder is unfinished.
 *
 * @throws {DriverError} `FORMAT_INVALID` when the file is there but is no manifest.
 */
export async function readManifest(path: string): Promise<Manifest | undefined> {
  const text = await readFile(path, "utf8").catch((cause: NodeJS.ErrnoException) => {
    if (cause.code === "ENOENT" || cause.code === "ENOTDIR") return undefined;
    throw cause;
  });
  if (text === undefined) return undefined;
  try {
    return Manifest.parse(JSON.parse(text));
  } catch (cause) {
    throw new DriverError("FORMAT_INVALID", `${path}: expected a vivarium manifest, got something else`, {
      hint: "Move the folder away and run the same command again.",
      facts: { path, problem: cause instanceof z.ZodError ? z.prettifyError(cause) : String(cause) },
      cause,
    });
  }
}

/** Written last and by rename: from this moment on the folder counts as finished. */
export function writeManifest(path: string, manifest: Manifest): Promise<void> {
  return writeJsonAtomic(path, Manifest.parse(manifest));
}

/** Size and sha256 of files, with paths relative to `root`. */
export async function fileEntries(root: string, paths: readonly string[]): Promise<FileEntry[]> {
  return Promise.all(
    paths.map(async (path) => {
      const absolute = join(root, path);
      return { path, sha256: await sha256File(absolute), bytes: (await stat(absolute)).size };
    }),
  );
}

/**
 * Checks that a file still is what a manifest says.
 *
 * @throws {DriverError} `ARTIFACT_CHANGED`: measuring a file that was swapped after it was made is this field's
 *   commonest silent error.
 */
export async function verifyEntry(
  root: string,
  entry: FileEntry,
  hash: (path: string) => Promise<string> = sha256File,
): Promise<void> {
  const path = join(root, entry.path);
  const found = await hash(path).catch(() => "no file");
  if (found === entry.sha256) return;
  throw new DriverError("ARTIFACT_CHANGED", `${path} has changed: expected sha256 ${entry.sha256}, got ${found}`, {
    hint: "Restore the file, or remove the folder and make it again.",
    facts: { path, expected: entry.sha256, found },
  });
}

/** Whether everything that a manifest lists as made is there in its size: what was moved away since is made again. */
export async function outputsExist(root: string, manifest: Manifest): Promise<boolean> {
  const sizes = await Promise.all(
    manifest.outputs.map((entry) =>
      stat(join(root, entry.path)).then(
        ({ size }) => size === entry.bytes,
        () => false,
      ),
    ),
  );
  return sizes.every(Boolean);
}
