/**
 * Edit distance (insert, delete, substitute) between two texts, in UTF-16 units, or `limit + 1` where it
 * exceeds `limit`.
 *
 * Source: V. I. Levenshtein, "Binary codes capable of correcting deletions, insertions and reversals" (1966).
 */
export function editDistance(a: string, b: string, limit: number): number {
  if (Math.abs(a.length - b.length) > limit) return limit + 1;
  let previous = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const substitution = (previous[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      row.push(Math.min(substitution, (previous[j] ?? 0) + 1, (row[j - 1] ?? 0) + 1));
    }
    if (Math.min(...row) > limit) return limit + 1;
    previous = row;
  }
  return Math.min(previous[b.length] ?? 0, limit + 1);
}

/**
 * The candidate nearest to `text` if at most `tolerance` (0-1) of the longer text differs, else undefined.
 * Of several equally near ones the first is returned.
 */
export function findNearest(text: string, candidates: Iterable<string>, tolerance: number): string | undefined {
  let nearest: string | undefined;
  let best = Number.POSITIVE_INFINITY;
  for (const candidate of candidates) {
    const allowed = Math.floor(tolerance * Math.max(text.length, candidate.length));
    const limit = Math.min(allowed, best - 1);
    if (limit < 0) continue;
    const distance = editDistance(text, candidate, limit);
    if (distance <= limit) {
      best = distance;
      nearest = candidate;
    }
  }
  return nearest;
}
