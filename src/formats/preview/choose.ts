import type { TokenRow } from "../training-rows.ts";

/** A row that is shown, and why this one. */
export interface ChosenRow {
  row: TokenRow;
  why: string;
}

const FIRST = 4;

/** Up to `most` rows in the order of the file: the first ones, the longest, the shortest, the most cut, others evenly. */
export function choosePreviewRows(rows: readonly TokenRow[], most = 12): ChosenRow[] {
  const whole = (row: TokenRow) => row.token_ids.length + row.cut_tokens;
  const best = (better: (a: TokenRow, b: TokenRow) => boolean) => rows.reduce((a, b) => (better(b, a) ? b : a));
  const chosen = new Map<TokenRow, string[]>();
  const choose = (row: TokenRow | undefined, why: string) => {
    if (row === undefined || (chosen.size >= most && !chosen.has(row))) return;
    chosen.set(row, [...(chosen.get(row) ?? []), ...(why === "" ? [] : [why])]);
  };
  if (rows.length === 0) return [];
  choose(
    best((a, b) => whole(a) > whole(b)),
    "longest",
  );
  choose(
    best((a, b) => whole(a) < whole(b)),
    "shortest",
  );
  const most_cut = best((a, b) => a.cut_tokens > b.cut_tokens);
  if (most_cut.cut_tokens > 0) choose(most_cut, "most cut");
  for (const row of rows.slice(0, FIRST)) choose(row, "");
  for (let i = 1; i <= most; i++) choose(rows[Math.floor((i * (rows.length - 1)) / most)], "");
  const found = [...chosen].map(([row, why]) => ({ row, why: why.join(", ") }));
  return found.sort((a, b) => a.row.line - b.row.line);
}
