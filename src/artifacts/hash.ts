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
 * Remembers file hashes under (path, size, modification time in ns, inode), so that planning over 60 GB of weights
 * reads them once. A file that is rewritten gets another modification time and is read again.
 */
export class HashCache {
  readonly #file: string;
  #entries: Map<string, string> | undefined;

  constructor(file: string) {
    this.#file = file;
  }

  async sha256(path: string): Promise<string> {
    const { size, mtimeNs, ino } = await stat(path, { bigint: true });
    const key = `${resolve(path)}|${size}|${mtimeNs}|${ino}`;
    const entries = await this.#load();
    const known = entries.get(key);
    if (known !== undefined) return known;
    const digest = await sha256File(path);
    entries.set(key, digest);
    await mkdir(dirname(this.#file), { recursive: true });
    await appendFile(this.#file, `${JSON.stringify([key, digest])}\n`);
    return digest;
  }

  async #load(): Promise<Map<string, string>> {
    if (this.#entries) return this.#entries;
    const text = await readFile(this.#file, "utf8").catch(() => "");
    const entries = new Map<string, string>();
    for (const line of text.split("\n")) {
      const match = /^\["(.*)","([0-9a-f]{64})"\]$/.exec(line); // a torn line does not match and is only forgotten
      if (match?.[1] !== undefined && match[2] !== undefined) entries.set(JSON.parse(`"${match[1]}"`), match[2]);
    }
    this.#entries = entries;
    return entries;
  }
}
