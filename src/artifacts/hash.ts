import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { appendFile, mkdir, readFile, stat } from "node:fs/promises";
import { dirname, resolve } from "node:path";

export function sha256(data: string | Uint8Array): string {
  return createHash("sha256").update(data).digest("hex");
}

/** JSON with sorted keys and no white space: equal values give equal text. `undefined` members are left out. */
export function canonicalJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map((item) => canonicalJson(item ?? null)).join(",")}]`;
  if (value !== null && typeof value === "object") {
    const entries = Object.entries(value).filter(([, member]) => member !== undefined);
    entries.sort(([a], [b]) => (a < b ? -1 : 1));
    return `{${entries.map(([key, member]) => `${JSON.stringify(key)}:${canonicalJson(member)}`).join(",")}}`;
  }
  if (typeof value === "number" && !Number.isFinite(value)) throw new TypeError(`Cannot hash ${value}`);
  return JSON.stringify(value);
}

/** Identity of a piece of work: sha256 of its canonical JSON. No paths and no times may be in `value`. */
export function hashJson(value: unknown): string {
  return sha256(canonicalJson(value));
}

/** sha256 of a file, read as a stream in constant memory. */
export async function sha256File(path: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) hash.update(chunk as Buffer);
  return hash.digest("hex");
}

/**
 * Remembers file hashes under (path, size, modification and change time in ns, inode), so that planning over 60 GB of
 * weights reads them once. A file that is rewritten gets another change time, whatever a copy tool sets, and is read again.
 */
export class HashCache {
  readonly #file: string;
  #entries: Map<string, string> | undefined;

  constructor(file: string) {
    this.#file = file;
  }

  async sha256(path: string): Promise<string> {
    const { size, mtimeNs, ctimeNs, ino } = await stat(path, { bigint: true });
    const key = `${resolve(path)}|${size}|${mtimeNs}|${ctimeNs}|${ino}`;
    const entries = await this.#load();
    const known = entries.get(key);
    if (known !== undefined) return known;
    const digest = await sha256File(path);
    entries.set(key, digest);
    await mkdir(dirname(this.#file), { recursive: true });
    await appendFile(this.#file, `\n${JSON.stringify([key, digest])}\n`); // a line of its own, even after a torn one
    return digest;
  }

  async #load(): Promise<Map<string, string>> {
    if (this.#entries) return this.#entries;
    const text = await readFile(this.#file, "utf8").catch(() => "");
    const entries = new Map<string, string>();
    for (const line of text.split("\n")) {
      const [key, digest] = parseEntry(line) ?? [];
      if (key !== undefined && digest !== undefined) entries.set(key, digest);
    }
    this.#entries = entries;
    return entries;
  }
}

/** A line of the cache; a torn one is only forgotten. */
function parseEntry(line: string): [string, string] | undefined {
  if (!/^\["[^\n]*","[0-9a-f]{64}"\]$/.test(line)) return undefined;
  try {
    return JSON.parse(line) as [string, string];
  } catch {
    return undefined;
  }
}
