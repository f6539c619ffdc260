import type { z } from "zod";
import { nearest } from "./nearest.ts";

/** The fields of zod's issues that faults are made of. */
export interface Issue {
  code: string;
  path: readonly PropertyKey[];
  message: string;
  input?: unknown;
  expected?: string;
  origin?: string;
  minimum?: number | bigint;
  maximum?: number | bigint;
  inclusive?: boolean;
  values?: readonly unknown[];
  format?: string;
  pattern?: string;
  keys?: readonly string[];
  errors?: readonly (readonly Issue[])[];
}

/** The fields of zod's definitions that lead from a schema to its parts. Source: zod 4 `v4/core/schemas.ts`. */
interface Definition {
  type: string;
  innerType?: Schema;
  in?: Schema;
  element?: Schema;
  valueType?: Schema;
  items?: readonly Schema[];
  options?: readonly Schema[];
  shape?: Readonly<Record<string, Schema>>;
  getter?: () => Schema;
  values?: readonly unknown[];
  entries?: Readonly<Record<string, unknown>>;
}
interface Schema {
  _zod: { def: Definition };
}

/** All schemas that a value may have to match once wrappers and unions are taken off. */
function expand({ _zod: { def } }: Schema): Definition[] {
  const inner = def.options ?? [def.innerType ?? def.in ?? (def.type === "lazy" ? def.getter?.() : undefined)];
  const parts = inner.filter((part): part is Schema => part !== undefined);
  return parts.length > 0 ? parts.flatMap(expand) : [def];
}

function definitionsAt(schema: z.ZodType, path: readonly PropertyKey[]): Definition[] {
  let found = expand(schema as unknown as Schema);
  for (const key of path) {
    found = found
      .map((def) => def.shape?.[String(key)] ?? def.element ?? def.valueType ?? def.items?.[Number(key)])
      .flatMap((part) => (part === undefined ? [] : expand(part)));
  }
  return found;
}

/** Keys of the objects that the schema allows at a path. */
export function knownKeys(schema: z.ZodType, path: readonly PropertyKey[]): string[] {
  return [...new Set(definitionsAt(schema, path).flatMap((def) => Object.keys(def.shape ?? {})))];
}

/** Literal and enum values that the schema allows at a path. */
export function literalsAt(schema: z.ZodType, path: readonly PropertyKey[]): unknown[] {
  return definitionsAt(schema, path).flatMap((def) => def.values ?? Object.values(def.entries ?? {}));
}

/** Replaces "no branch of the union matches" by the issues of the branch that was meant, where that can be told. */
export function flattenIssues(issues: readonly Issue[]): Issue[] {
  return issues.flatMap((issue) => {
    if (issue.code !== "invalid_union" || issue.errors === undefined || issue.errors.length === 0) return [issue];
    const meant = issue.errors
      .filter((branch) => branch.every(({ path, code }) => path.length > 0 || code !== "invalid_type"))
      .sort((a, b) => a.length - b.length)[0];
    if (meant === undefined) return [issue];
    return flattenIssues(meant.map((inner) => ({ ...inner, path: [...issue.path, ...inner.path] })));
  });
}

const TYPE_NAMES: Readonly<Record<string, string>> = {
  ...{ array: "a list", object: "a map", record: "a map", string: "a string", number: "a number", int: "an integer" },
  ...{ boolean: "true or false", null: "null" },
};

/** What should have stood in the place of an issue, e.g. `a number of at least 0`. */
export function expectation(issue: Issue, literals: readonly unknown[]): string {
  switch (issue.code) {
    case "invalid_type":
      return TYPE_NAMES[issue.expected ?? ""] ?? issue.expected ?? issue.message;
    case "invalid_value":
      return oneOf(issue.values ?? [], issue.input);
    case "too_small":
      return size(issue, issue.inclusive === false ? "more than" : "at least", issue.minimum);
    case "too_big":
      return size(issue, issue.inclusive === false ? "less than" : "at most", issue.maximum);
    case "invalid_format":
      return formatExpectation(issue);
    case "invalid_union":
      return unionExpectation(issue, literals);
    default:
      return issue.message;
  }
}

/** The schema's own words where it has some; zod's begin with "Invalid". */
function formatExpectation({ message, pattern, format }: Issue): string {
  if (!message.startsWith("Invalid")) return message;
  return pattern === undefined ? `text of the form ${format}` : `text that matches ${pattern}`;
}

function size(issue: Issue, bound: string, limit: number | bigint | undefined): string {
  const plural = limit === 1 ? "" : "s";
  if (issue.origin === "string") return `${bound} ${limit} character${plural}`;
  if (issue.origin === "array" || issue.origin === "set") return `${bound} ${limit} item${plural}`;
  if (issue.inclusive === false) return `a number ${bound === "more than" ? "above" : "below"} ${limit}`;
  return `a number of ${bound} ${limit}`;
}

function oneOf(values: readonly unknown[], input: unknown): string {
  const shown = values.map((value) => JSON.stringify(value)).join(", ");
  const guess =
    typeof input === "string"
      ? nearest(
          input,
          values.filter((value) => typeof value === "string"),
        )
      : undefined;
  const list = values.length === 1 ? shown : `one of ${shown}`;
  return guess === undefined ? list : `${list} (did you mean ${JSON.stringify(guess)}?)`;
}

function unionExpectation(issue: Issue, literals: readonly unknown[]): string {
  const branches = (issue.errors ?? []).flatMap((branch) => branch.map((inner) => expectation(inner, [])));
  if (branches.length > 0) return [...new Set(branches)].join(" or ");
  return literals.length > 0 ? oneOf(literals, issue.input) : issue.message;
}
