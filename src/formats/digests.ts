import { createHash } from "node:crypto";
import type { TrainingRow } from "./training-row.ts";

/** What `DataReady` reports of the same rows; counts are of whole rows, before `max_length` cuts any. */
export interface Digests {
  rows: number;
  tokens: number;
  target_tokens: number;
  longest_row_tokens: number;
  /** Rows that `max_length` cuts, and tokens that it cuts off. */
  truncated_rows: number;
  truncated_tokens: number;
  token_ids_sha256: string;
  targets_sha256: string;
}

/** Counts and hashes of whole rows: decimals joined by one space, each row ended by "\n"; targets likewise as 0 and 1. */
export function digests(rows: Iterable<TrainingRow>, max_length: number | null = null): Digests {
  const ids_hash = createHash("sha256");
  const targets_hash = createHash("sha256");
  const counts = {
    rows: 0,
    tokens: 0,
    target_tokens: 0,
    longest_row_tokens: 0,
    truncated_rows: 0,
    truncated_tokens: 0,
  };
  for (const { token_ids, targets } of rows) {
    ids_hash.update(`${token_ids.join(" ")}\n`);
    targets_hash.update(`${targets.map((target) => (target ? 1 : 0)).join(" ")}\n`);
    const cut = max_length === null ? 0 : Math.max(0, token_ids.length - max_length);
    counts.rows += 1;
    counts.tokens += token_ids.length;
    counts.target_tokens += targets.filter((target) => target).length;
    counts.longest_row_tokens = Math.max(counts.longest_row_tokens, token_ids.length);
    counts.truncated_rows += cut > 0 ? 1 : 0;
    counts.truncated_tokens += cut;
  }
  return { ...counts, token_ids_sha256: ids_hash.digest("hex"), targets_sha256: targets_hash.digest("hex") };
}
