/** A JSON value with its place: offsets in UTF-16 code units from the start of the text. */
export type JsonNode = { start: number } & (
  | { kind: "object"; members: { key: string; key_start: number; value: JsonNode }[] }
  | { kind: "array"; items: JsonNode[] }
  | { kind: "string"; value: string }
  | { kind: "number"; value: number }
  | { kind: "literal"; value: boolean | null }
);

/** Where and why a text is not JSON. */
export interface JsonFault {
  offset: number;
  expected: string;
}

/** Deeper nesting than any record has; keeps hostile text from exhausting the stack. */
const MAX_DEPTH = 64;
const LITERALS = { true: true, false: false, null: null } as const;

/** Parses strict JSON (RFC 8259), keeping repeated keys, and says where it breaks; JSON.parse on Node 20 does neither. */
export function parseJson(text: string): { node: JsonNode } | { fault: JsonFault } {
  const parser = new Parser(text);
  try {
    return { node: parser.document() };
  } catch (error) {
    if (error instanceof Break) return { fault: error.fault };
    throw error;
  }
}

/** Unwinds the parser; never leaves this file. */
class Break extends Error {
  readonly fault: JsonFault;

  constructor(fault: JsonFault) {
    super(fault.expected);
    this.fault = fault;
  }
}

class Parser {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  document(): JsonNode {
    const node = this.#value(0);
    this.#space();
    if (this.#at < this.#text.length) throw this.#break("the end of the line");
    return node;
  }

  #break(expected: string, offset = this.#at): Break {
    return new Break({ offset, expected });
  }

  #match(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.#text)?.[0];
    if (found !== undefined) this.#at += found.length;
    return found;
  }

  #space(): void {
    this.#match(/[ \t\r\n]*/y);
  }

  #skip(character: string): boolean {
    this.#space();
    if (this.#text[this.#at] !== character) return false;
    this.#at += 1;
    return true;
  }

  #value(depth: number): JsonNode {
    this.#space();
    if (depth > MAX_DEPTH) throw this.#break(`at most ${MAX_DEPTH} levels`);
    const start = this.#at;
    const first = this.#text[start];
    if (first === "{") return { start, kind: "object", members: this.#members(depth) };
    if (first === "[") return { start, kind: "array", items: this.#items(depth) };
    if (first === '"') return { start, kind: "string", value: this.#string() };
    const number = this.#match(/-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y);
    if (number !== undefined) return { start, kind: "number", value: Number(number) };
    const word = this.#match(/true|false|null/y);
    if (word !== undefined) return { start, kind: "literal", value: LITERALS[word as keyof typeof LITERALS] };
    throw this.#break("a JSON value");
  }

  #members(depth: number): { key: string; key_start: number; value: JsonNode }[] {
    const members: { key: string; key_start: number; value: JsonNode }[] = [];
    this.#at += 1;
    if (this.#skip("}")) return members;
    do {
      this.#space();
      const key_start = this.#at;
      if (this.#text[this.#at] !== '"') throw this.#break("a key in double quotes");
      const key = this.#string();
      if (!this.#skip(":")) throw this.#break('":"');
      members.push({ key, key_start, value: this.#value(depth + 1) });
    } while (this.#skip(","));
    if (!this.#skip("}")) throw this.#break('"," or "}"');
    return members;
  }

  #items(depth: number): JsonNode[] {
    const items: JsonNode[] = [];
    this.#at += 1;
    if (this.#skip("]")) return items;
    do items.push(this.#value(depth + 1));
    while (this.#skip(","));
    if (!this.#skip("]")) throw this.#break('"," or "]"');
    return items;
  }

  #string(): string {
    const start = this.#at;
    this.#at += 1;
    for (;;) {
      // All but quotes, backslashes and control characters.
      this.#match(/[ !#-[\]-\uffff]*/y);
      if (this.#text[this.#at] === '"') break;
      if (this.#match(/\\(?:["\\/bfnrt]|u[\da-fA-F]{4})/y) !== undefined) continue;
      if (this.#at >= this.#text.length) throw this.#break("a closing quote");
      throw this.#break(
        this.#text[this.#at] === "\\" ? "a JSON escape" : "an escape such as \\n instead of a control character",
      );
    }
    this.#at += 1;
    return JSON.parse(this.#text.slice(start, this.#at)) as string;
  }
}
