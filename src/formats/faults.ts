import { DriverError, type ErrorCode, type Fault } from "../errors.ts";
import { nearest } from "./nearest.ts";

/** So many faults are spelled out in a message; all of them are in `faults`. */
const LISTED_FAULTS = 20;
const SHOWN_CHARS = 60;

/** A value as it may stand in a message: JSON, cut to 60 characters. */
export function show(value: unknown): string {
  if (value === undefined) return "nothing";
  const text = JSON.stringify(value) ?? String(value);
  return text.length > SHOWN_CHARS ? `${text.slice(0, SHOWN_CHARS - 1)}…` : text;
}

/** One error out of all faults of one text, in the order of their places. The message lists the first 20. */
export function faultError(code: ErrorCode, faults: readonly Fault[], hint?: string): DriverError {
  const sorted = [...faults].sort((a, b) => a.line - b.line || a.column - b.column);
  const lines = sorted
    .slice(0, LISTED_FAULTS)
    .map(
      ({ file, line, column, expected, found }) => `${file}:${line}:${column}: expected ${expected}, found ${found}`,
    );
  const rest = sorted.length - lines.length;
  if (rest > 0) lines.push(`... and ${rest} more`);
  return new DriverError(code, lines.join("\n"), {
    faults: sorted,
    facts: { n_faults: sorted.length },
    ...(hint === undefined ? {} : { hint }),
  });
}

/** So many keys are named; a recipe has forty. */
const LISTED_KEYS = 12;
const listed = (known: readonly string[]): string =>
  known.length <= LISTED_KEYS
    ? known.join(", ")
    : `${known.slice(0, LISTED_KEYS).join(", ")} and ${known.length - LISTED_KEYS} others`;

/** What to say of a key that nobody reads. */
export function unknownKey(key: string, known: readonly string[]): Pick<Fault, "expected" | "found"> {
  const guess = nearest(key, known);
  const expected =
    guess === undefined ? `one of the keys ${listed(known)}` : `a known key (did you mean ${JSON.stringify(guess)}?)`;
  return { expected, found: show(key) };
}
