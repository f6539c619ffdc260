import { type FileHandle, mkdir, open, readFile, truncate } from "node:fs/promises";
import { dirname } from "node:path";
import { z } from "zod";
import { DriverError } from "../errors.ts";
import { diskError } from "./atomic.ts";

/** Text of a journal up to its last newline, and how many bytes that is. What follows was torn by a crash. */
export function wholeLines(text: Buffer): { lines: string[]; bytes: number } {
  const end = text.lastIndexOf(0x0a) + 1;
  const whole = text.subarray(0, end).toString("utf8");
  return { lines: whole === "" ? [] : whole.slice(0, -1).split("\n"), bytes: end };
}

/**
 * Reads the rows of an append-only JSONL file; a torn last line is ignored, a missing file has no rows.
 *
 * @throws {DriverError} `FORMAT_INVALID` with file and line when a whole line is not a row.
 */
export async function readJournal<T>(path: string, schema: z.ZodType<T>): Promise<T[]> {
  const text = await readFile(path).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code === "ENOENT") return Buffer.alloc(0);
    throw cause;
  });
  return wholeLines(text).lines.map((line, index) => parseRow(path, index + 1, line, schema));
}

function parseRow<T>(path: string, line: number, text: string, schema: z.ZodType<T>): T {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    value = undefined;
  }
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  throw new DriverError("FORMAT_INVALID", `${path}:${line}:1: expected a row of this journal, got something else`, {
    hint: "The file was changed by something other than vivarium. Move it away; the rows will be made again.",
    facts: { path, line, problem: z.prettifyError(parsed.error), text: text.slice(0, 200) },
  });
}

/**
 * An append-only JSONL file whose rows have a key. Opening it cuts off a torn last line; a key is written at most once.
 * The caller holds the lock of the folder.
 */
export class Journal<T> {
  readonly #keyOf: (row: T) => string;
  readonly #file: FileHandle;
  readonly #path: string;
  readonly rows: T[];
  readonly #keys: Set<string>;

  private constructor(path: string, file: FileHandle, rows: T[], keyOf: (row: T) => string) {
    this.#path = path;
    this.#file = file;
    this.rows = rows;
    this.#keyOf = keyOf;
    this.#keys = new Set(rows.map(keyOf));
  }

  /** @throws {DriverError} `FORMAT_INVALID` when a line is no row or a key stands twice. */
  static async open<T>(path: string, schema: z.ZodType<T>, keyOf: (row: T) => string): Promise<Journal<T>> {
    await mkdir(dirname(path), { recursive: true });
    const text = await readFile(path).catch(() => Buffer.alloc(0));
    const { bytes } = wholeLines(text);
    if (bytes < text.length) await truncate(path, bytes);
    const rows = await readJournal(path, schema);
    const journal = new Journal(path, await open(path, "a"), rows, keyOf);
    if (journal.#keys.size !== rows.length) {
      await journal.close();
      throw new DriverError(
        "FORMAT_INVALID",
        `${path}: expected each key once, got ${rows.length - journal.#keys.size} twice`,
      );
    }
    return journal;
  }

  has(key: string): boolean {
    return this.#keys.has(key);
  }

  /** Appends the rows whose keys are new, in one write, and returns when they are on the disk. */
  async append(rows: readonly T[]): Promise<number> {
    const fresh = rows.filter((row) => !this.#keys.has(this.#keyOf(row)));
    if (fresh.length === 0) return 0;
    try {
      await this.#file.appendFile(fresh.map((row) => `${JSON.stringify(row)}\n`).join(""));
      await this.#file.datasync();
    } catch (cause) {
      throw diskError(cause, this.#path);
    }
    for (const row of fresh) {
      this.#keys.add(this.#keyOf(row));
      this.rows.push(row);
    }
    return fresh.length;
  }

  async close(): Promise<void> {
    await this.#file.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
