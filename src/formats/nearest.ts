/** Beyond this many edits a suggestion is more often noise than help. */
const MAX_EDITS = 3;

/**
 * Number of insertions, deletions, substitutions and swaps of neighbours that turn `a` into `b`.
 *
 * Source: optimal string alignment distance, Boytsov 2011, "Indexing methods for approximate dictionary searching",
 * section 2.2.
 */
export function editDistance(a: string, b: string): number {
  const width = b.length + 1;
  let before: number[] = [];
  let last = Array.from({ length: width }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j < width; j++) {
      const same = a[i - 1] === b[j - 1] ? 0 : 1;
      let best = Math.min((last[j] ?? 0) + 1, (row[j - 1] ?? 0) + 1, (last[j - 1] ?? 0) + same);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        best = Math.min(best, (before[j - 2] ?? 0) + 1);
      row.push(best);
    }
    before = last;
    last = row;
  }
  return last[b.length] ?? 0;
}

/** The candidate that `word` was most likely meant to be, or undefined when none is near. Case does not count. */
export function nearest(word: string, candidates: Iterable<string>): string | undefined {
  const wanted = word.toLowerCase();
  const limit = Math.min(MAX_EDITS, Math.max(1, Math.floor(wanted.length / 3)));
  let best: string | undefined;
  let best_edits = limit + 1;
  for (const candidate of candidates) {
    if (Math.abs(candidate.length - wanted.length) >= best_edits) continue;
    const edits = editDistance(wanted, candidate.toLowerCase());
    if (edits < best_edits) [best, best_edits] = [candidate, edits];
  }
  return best;
}
