import type { DriverError, Fault } from "../errors.ts";
import type { ChatTemplateKwargs, Rendering } from "../records/lora.ts";
import type { ChatFormat } from "./chat.ts";
import type { DatasetRow } from "./dataset.ts";
import { type Digests, digests } from "./digests.ts";
import { faultError } from "./faults.ts";
import { messageFaults, type RowFault, rowFault, type TrainingRow } from "./training-row.ts";

/** How many tokens a row may have. */
export interface RowLimits {
  /** Rows are cut at their end to so many tokens; null cuts none. */
  max_length: number | null;
  /** Positions that the model was made for. */
  max_positions: number;
}

/** A row as it is trained on, cut to `max_length`. */
export interface TokenRow extends TrainingRow {
  /** Line of the file, from 1. */
  line: number;
  /** Tokens that `max_length` cut off. */
  cut_tokens: number;
}

/** A data set as tokens. */
export interface TrainingRows {
  /** In the order of the file. */
  rows: TokenRow[];
  /** Of the rows before they are cut. */
  digests: Digests;
  /** Line of the row with the most tokens before cutting. */
  longest_line: number;
}

const TOO_LONG = "Set max_length to have long rows cut at their end, or shorten them.";
const ALL_CUT = "Raise max_length, or shorten what stands before the answer.";

/**
 * Renders and tokenises a whole data set.
 *
 * @throws DriverError DATA_INVALID with every fault of every row, placed at the message it is about: rows that are
 * rendered otherwise than inference renders them, longer than the model's positions, or cut before their first target.
 */
export function trainingRows(
  rows: readonly DatasetRow[],
  file: string,
  chat: ChatFormat,
  kwargs: ChatTemplateKwargs,
  rendering: Rendering,
  limits: RowLimits,
): TrainingRows {
  const faults: Fault[] = [];
  const hints = new Set<string>();
  const whole: (TrainingRow & { line: number })[] = [];
  for (const row of rows) {
    const made = makeRow(row, chat, kwargs, rendering, limits);
    if (!("faults" in made)) whole.push({ ...made, line: row.line });
    else
      for (const { turn, expected, found, hint } of made.faults) {
        faults.push({ file, line: row.line, column: row.columns[turn] ?? 1, expected, found });
        hints.add(hint);
      }
  }
  if (faults.length > 0) throw allFaults(faults, hints);
  const longest = whole.reduce((a, b) => (b.token_ids.length > a.token_ids.length ? b : a));
  const { max_length } = limits;
  return {
    rows: whole.map((row) => cut(row, max_length)),
    digests: digests(whole, max_length),
    longest_line: longest.line,
  };
}

function makeRow(
  { messages }: DatasetRow,
  chat: ChatFormat,
  kwargs: ChatTemplateKwargs,
  rendering: Rendering,
  limits: RowLimits,
): TrainingRow | { faults: RowFault[] } {
  const faults = messageFaults(chat, messages, rendering.thinking);
  if (faults.length > 0) return { faults };
  try {
    const row = chat.trainingRow(messages, kwargs, rendering);
    const fault = lengthFault(row, messages.length - 1, limits);
    return fault === undefined ? row : { faults: [fault] };
  } catch (error) {
    return { faults: [rowFault(error)] };
  }
}

function lengthFault(
  { token_ids, targets }: TrainingRow,
  turn: number,
  { max_length, max_positions }: RowLimits,
): RowFault | undefined {
  const kept = Math.min(token_ids.length, max_length ?? token_ids.length);
  if (kept > max_positions) {
    const expected = `at most ${max_positions} tokens, the model's positions`;
    return { turn, expected, found: `${kept} tokens`, hint: TOO_LONG };
  }
  const first = targets.indexOf(true);
  if (first < kept) return undefined;
  const expected = `a trained token among the first ${kept}, which max_length keeps`;
  return { turn, expected, found: `the first at token ${first + 1}`, hint: ALL_CUT };
}

function cut({ token_ids, targets, line }: TrainingRow & { line: number }, max_length: number | null): TokenRow {
  const cut_tokens = max_length === null ? 0 : Math.max(0, token_ids.length - max_length);
  if (cut_tokens === 0 || max_length === null) return { line, token_ids, targets, cut_tokens };
  return { line, token_ids: token_ids.slice(0, max_length), targets: targets.slice(0, max_length), cut_tokens };
}

function allFaults(faults: readonly Fault[], hints: ReadonlySet<string>): DriverError {
  return faultError("DATA_INVALID", faults, [...hints].slice(0, 3).join(" "));
}
