import { type Document, isAlias, isMap, isNode, isScalar, isSeq, LineCounter, type Node, parseDocument } from "yaml";
import type { z } from "zod";
import type { DriverError, Fault } from "../errors.ts";
import { faultError, show, unknownKey } from "./faults.ts";
import { expectation, flattenIssues, type Issue, knownKeys, literalsAt } from "./zod-issues.ts";

/** Enough for question files that repeat one rubric by alias, and few enough to defuse alias bombs. */
const MAX_ALIASES = 1000;
const TOO_DEEP = "nesting that is too deep";

/**
 * Parses YAML 1.2 by a schema.
 *
 * @throws DriverError CONFIG_INVALID with every fault placed by line and column (UTF-16 code units, from 1): syntax,
 * repeated keys, unknown keys with the nearest known one, and values that the schema refuses.
 */
export function parseYaml<S extends z.ZodType>(text: string, file: string, schema: S): z.output<S> {
  const lines = new LineCounter();
  const source = text.replace(/^\ufeff/, "");
  const document = readDocument(source, file, lines);
  const place = (offset: number) => {
    const { line, col } = lines.linePos(offset);
    return { file, line: Math.max(1, line), column: Math.max(1, col) };
  };
  const syntax = syntaxFaults(document, source, place);
  if (syntax.length > 0) throw faultError("CONFIG_INVALID", syntax);
  const parsed = schema.safeParse(toValue(document, file));
  if (parsed.success) return parsed.data;
  const faults = flattenIssues(parsed.error.issues as Issue[]).flatMap((issue) =>
    issueFaults(issue, document, schema, place),
  );
  throw faultError("CONFIG_INVALID", faults);
}

type Place = (offset: number) => Pick<Fault, "file" | "line" | "column">;
type Path = readonly PropertyKey[];

/** One fault for each place: the parser reports the same break several times while it recovers. */
function syntaxFaults({ errors, warnings }: Document.Parsed, source: string, place: Place): Fault[] {
  const faults = new Map<number, Fault>();
  for (const { code, message, pos } of [...errors, ...warnings]) {
    if (faults.has(pos[0])) continue;
    const key = /^[^:\n]*/.exec(source.slice(pos[0]))?.[0].trim();
    const texts =
      code === "DUPLICATE_KEY"
        ? { expected: "each key once", found: `${show(key)} again` }
        : { expected: "valid YAML", found: message.startsWith("Maximum call stack") ? TOO_DEEP : message };
    faults.set(pos[0], { ...place(pos[0]), ...texts });
  }
  return [...faults.values()];
}

/** The parser recurses, so that hostile nesting ends in a RangeError, which is a fault of the text and not of ours. */
function readDocument(text: string, file: string, lines: LineCounter): Document.Parsed {
  try {
    return parseDocument(text, { lineCounter: lines, prettyErrors: false, uniqueKeys: true });
  } catch (cause) {
    throw unreadable(file, cause);
  }
}

function toValue(document: Document.Parsed, file: string): unknown {
  try {
    return document.toJS({ maxAliasCount: MAX_ALIASES });
  } catch (cause) {
    throw unreadable(file, cause);
  }
}

function unreadable(file: string, cause: unknown): DriverError {
  const found = cause instanceof RangeError ? TOO_DEEP : (cause as Error).message;
  return faultError("CONFIG_INVALID", [{ file, line: 1, column: 1, expected: "plain YAML", found }]);
}

function issueFaults(issue: Issue, document: Document.Parsed, schema: z.ZodType, place: Place): Fault[] {
  const { node, rest } = locate(document, issue.path);
  const at = place(node?.range?.[0] ?? 0);
  if (issue.code === "unrecognized_keys") {
    const known = knownKeys(schema, issue.path);
    return (issue.keys ?? []).map((key) => ({ ...place(keyOffset(node, key)), ...unknownKey(key, known) }));
  }
  const missing = rest[0];
  const input = missing === undefined ? toPlain(node, document) : undefined;
  const expected = expectation({ ...issue, input }, literalsAt(schema, issue.path));
  if (missing !== undefined)
    return [{ ...at, expected: `the key ${show(String(missing))} (${expected})`, found: "none" }];
  return [{ ...at, expected, found: isMap(node) ? "a map" : isSeq(node) ? "a list" : show(input) }];
}

/** The node at a path as far as it exists, and what of the path is left. */
function locate(document: Document.Parsed, path: Path): { node: Node | null; rest: Path } {
  let node = resolve(document.contents, document);
  for (const [depth, key] of path.entries()) {
    const child = resolve(childOf(node, key), document);
    if (child === null) return { node, rest: path.slice(depth) };
    node = child;
  }
  return { node, rest: [] };
}

function resolve(node: unknown, document: Document.Parsed): Node | null {
  if (!isNode(node)) return null;
  return isAlias(node) ? (node.resolve(document) ?? null) : node;
}

function childOf(node: Node | null, key: PropertyKey): unknown {
  if (isSeq(node)) return node.items[Number(key)];
  if (!isMap(node)) return null;
  return node.items.find((pair) => keyText(pair.key) === String(key))?.value ?? null;
}

const keyText = (key: unknown): string => String(isScalar(key) ? key.value : key);

function keyOffset(node: Node | null, key: string): number {
  const pair = isMap(node) ? node.items.find((item) => keyText(item.key) === key) : undefined;
  return (isNode(pair?.key) ? pair.key.range?.[0] : undefined) ?? node?.range?.[0] ?? 0;
}

function toPlain(node: Node | null, document: Document.Parsed): unknown {
  return node === null ? null : node.toJS(document, { maxAliasCount: MAX_ALIASES });
}
