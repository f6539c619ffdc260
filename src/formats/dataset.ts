import type { Fault } from "../errors.ts";
import { faultError, show, unknownKey } from "./faults.ts";
import { type JsonNode, parseJson } from "./json.ts";
import { nearest } from "./nearest.ts";

const ROLES = ["system", "user", "assistant"] as const;
export type Role = (typeof ROLES)[number];

export interface Message {
  role: Role;
  content: string;
}

/** One conversation: an optional system message, then user and assistant in turn, the assistant last. */
export interface DatasetRow {
  messages: Message[];
  id?: string;
  tags?: Record<string, string>;
  /** Line of the file, from 1. */
  line: number;
  /** Column of each message's content in that line, in UTF-16 code units from 1. */
  columns: number[];
}

const ROW_HINT =
  'A row is one line: {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}.';
/** What to do about a special token in a message. */
export const TOKEN_HINT = "A special token inside a message would end it, or begin another: write it in another way.";
const hintFor = (faults: readonly Fault[]): string =>
  faults.every(({ expected }) => expected === PLAIN) ? TOKEN_HINT : ROW_HINT;
const PLAIN = "plain text";
const ROW_KEYS = ["messages", "id", "tags"];
const MESSAGE_KEYS = ["role", "content"];

/**
 * Control tokens of Qwen's tokenizers, refused in content where the caller does not know the model's own.
 *
 * Source: `added_tokens` with `special: true` in tokenizer.json of Qwen2.5 and Qwen3.
 */
const QWEN_SPECIAL_TOKENS = [
  ...["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>"],
  ...["<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"],
  ...["<|image_pad|>", "<|video_pad|>"],
];

/**
 * Reads a data set: JSON Lines of `{messages: [{role, content}]}`. Blank lines, a byte order mark and CRLF are fine.
 *
 * `special_tokens` are the spellings that the model's tokenizer would turn into control tokens.
 *
 * @throws DriverError DATA_INVALID with every fault of the file, placed by line and column (UTF-16 code units, from 1).
 */
export function parseDataset(
  text: string,
  file: string,
  special_tokens: readonly string[] = QWEN_SPECIAL_TOKENS,
): DatasetRow[] {
  const faults: Fault[] = [];
  const rows: DatasetRow[] = [];
  const lines = text.replace(/^\ufeff/, "").split("\n");
  for (const [index, line] of lines.entries()) {
    const row = line.replace(/\r$/, "");
    if (row.trim() === "") continue;
    const parsed = new RowParser(row, file, index + 1, special_tokens, faults).parse();
    if (parsed !== undefined) rows.push(parsed);
  }
  if (rows.length === 0 && faults.length === 0) {
    faults.push({ file, line: 1, column: 1, expected: "at least one row", found: "none" });
  }
  if (faults.length === 0) return rows;
  throw faultError("DATA_INVALID", isOneJsonText(text) ? [oneJson(file)] : faults, hintFor(faults));
}

/** True of a file that holds one JSON value over several lines, or one list of rows: each line of it would be a fault. */
function isOneJsonText(text: string): boolean {
  try {
    const value: unknown = JSON.parse(text.replace(/^\ufeff/, ""));
    return Array.isArray(value) ? value.some((row) => typeof row === "object") : text.trim().includes("\n");
  } catch {
    return false;
  }
}

const oneJson = (file: string): Fault => ({
  ...{ file, line: 1, column: 1, expected: "JSON Lines, one row on each line" },
  found: "one JSON value over the whole file",
});

type Members = Map<string, JsonNode>;

class RowParser {
  readonly #text: string;
  readonly #file: string;
  readonly #line: number;
  readonly #special: readonly string[];
  readonly #faults: Fault[];

  constructor(text: string, file: string, line: number, special: readonly string[], faults: Fault[]) {
    this.#text = text;
    this.#file = file;
    this.#line = line;
    this.#special = special;
    this.#faults = faults;
  }

  /** The row, which is only to be used if no fault was added. */
  parse(): DatasetRow | undefined {
    const parsed = parseJson(this.#text);
    if ("fault" in parsed) {
      const { offset, expected } = parsed.fault;
      const rest = this.#text.slice(offset, offset + 20);
      this.#fault(offset, expected, rest === "" ? "the end of the line" : show(rest));
      return undefined;
    }
    if (parsed.node.kind === "object" && isForeign(parsed.node.members)) {
      this.#fault(parsed.node.start, 'the key "messages"', foundKeys(parsed.node));
      return undefined;
    }
    const members = this.#members(parsed.node, ROW_KEYS, "a row");
    if (members === undefined) return undefined;
    const columns: number[] = [];
    const messages = this.#messages(parsed.node, members.get("messages"), columns);
    const row: DatasetRow = { messages, line: this.#line, columns };
    const id = members.get("id");
    if (id !== undefined) row.id = this.#text_of(id, "a string");
    const tags = members.get("tags");
    if (tags !== undefined) row.tags = this.#tags(tags);
    return row;
  }

  #fault(offset: number, expected: string, found: string): void {
    this.#faults.push({ file: this.#file, line: this.#line, column: offset + 1, expected, found });
  }

  /** Members of an object by key; unknown and repeated keys are faults. */
  #members(node: JsonNode, known: readonly string[], what: string): Members | undefined {
    if (node.kind !== "object") {
      this.#fault(node.start, `${what} as a JSON object`, describe(node));
      return undefined;
    }
    const members: Members = new Map();
    for (const { key, key_start, value } of node.members) {
      if (!known.includes(key)) {
        const { expected, found } = unknownKey(key, known);
        this.#fault(key_start, expected, found);
      } else if (members.has(key)) this.#fault(key_start, "each key once", `${show(key)} again`);
      members.set(key, value);
    }
    return members;
  }

  #text_of(node: JsonNode, expected: string): string {
    if (node.kind === "string") return node.value;
    this.#fault(node.start, expected, describe(node));
    return "";
  }

  #tags(node: JsonNode): Record<string, string> {
    if (node.kind !== "object") {
      this.#fault(node.start, "tags as a JSON object of strings", describe(node));
      return {};
    }
    return Object.fromEntries(node.members.map(({ key, value }) => [key, this.#text_of(value, "a string")]));
  }

  #messages(row: JsonNode, node: JsonNode | undefined, columns: number[]): Message[] {
    if (node === undefined) this.#noMessages(row);
    else if (node.kind !== "array") this.#fault(node.start, "a list of messages", describe(node));
    else return this.#turns(node.start, node.items, columns);
    return [];
  }

  /** A misspelt key is a fault already. */
  #noMessages(row: JsonNode): void {
    const keys = row.kind === "object" ? row.members.map(({ key }) => key) : [];
    if (!keys.some((key) => nearest(key, ["messages"]) !== undefined))
      this.#fault(row.start, 'the key "messages"', foundKeys(row));
  }

  #turns(start: number, items: JsonNode[], columns: number[]): Message[] {
    const messages: Message[] = [];
    let last_role_start = start;
    for (const item of items) {
      const members = this.#members(item, MESSAGE_KEYS, "a message");
      if (members === undefined) return messages;
      const role_node = members.get("role");
      const role = this.#role(item, role_node, messages);
      if (role === undefined) return messages;
      last_role_start = role_node?.start ?? start;
      const content = members.get("content");
      columns.push((content?.start ?? item.start) + 1);
      messages.push({ role, content: this.#content(item, content) });
    }
    const last = messages.at(-1)?.role;
    if (!messages.some(({ role }) => role === "assistant")) this.#fault(start, "a message of the assistant", "none");
    else if (last !== "assistant") this.#fault(last_role_start, 'the last role to be "assistant"', show(last));
    return messages;
  }

  /** The role of the next message, or undefined after a fault: what follows could not be judged. */
  #role(item: JsonNode, node: JsonNode | undefined, before: readonly Message[]): Role | undefined {
    const previous = before.at(-1)?.role;
    const allowed = previous === undefined ? ["system", "user"] : [previous === "user" ? "assistant" : "user"];
    const place = previous === undefined ? "first" : `after ${show(previous)}`;
    const expected = `the role ${allowed.map(show).join(" or ")} ${place}`;
    if (node === undefined) this.#fault(item.start, 'the key "role"', "none");
    else if (node.kind !== "string" || !allowed.includes(node.value)) this.#fault(node.start, expected, describe(node));
    else return node.value as Role;
    return undefined;
  }

  #content(item: JsonNode, node: JsonNode | undefined): string {
    if (node === undefined) {
      this.#fault(item.start, 'the key "content"', "none");
      return "";
    }
    const content = this.#text_of(node, "content as a string");
    if (node.kind !== "string") return content;
    const spelled = this.#special.find((token) => content.includes(token));
    if (content.trim() === "") this.#fault(node.start, "content that is not empty", show(content));
    else if (spelled !== undefined)
      this.#fault(this.#offsetIn(node.start, spelled), PLAIN, `the special token ${spelled}`);
    else if (/\p{Surrogate}/u.test(content))
      this.#fault(node.start, "whole Unicode characters", "half of a surrogate pair");
    return content;
  }

  /** Where a part of a string's content stands in the line, or the string's start when it is written with escapes. */
  #offsetIn(start: number, part: string): number {
    const offset = this.#text.indexOf(part, start);
    return offset < 0 ? start : offset;
  }
}

/** True of a row in another layout, such as prompt and completion: one fault says more than one for each of its keys. */
const isForeign = (members: readonly { key: string }[]): boolean =>
  members.length > 0 && !members.some(({ key }) => nearest(key, ROW_KEYS) !== undefined);

function foundKeys(row: JsonNode): string {
  const keys = row.kind === "object" ? row.members.map(({ key }) => key) : [];
  return keys.length === 0 ? "none" : `the key${keys.length === 1 ? "" : "s"} ${keys.slice(0, 5).map(show).join(", ")}`;
}

function describe(node: JsonNode): string {
  if (node.kind === "object") return "an object";
  if (node.kind === "array") return "a list";
  return show(node.value);
}
