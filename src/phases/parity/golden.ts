/**
 * Compares token ids of the same conversations from two renderers. `[conversation][token]`.
 *
 * @returns null when equal, else one sentence that names the first difference: another chat template, tokenizer or
 *   special token on one side makes every later number about another prompt.
 */
export function compareGolden(
  idsA: readonly (readonly number[])[],
  idsB: readonly (readonly number[])[],
): string | null {
  if (idsA.length !== idsB.length) return `expected ${idsA.length} conversations, got ${idsB.length}`;
  for (const [conversation, a] of idsA.entries()) {
    const b = idsB[conversation] ?? [];
    const token = firstDifference(a, b);
    if (token !== null)
      return `conversation ${conversation}, token ${token}: expected ${a[token] ?? "the end"}, got ${b[token] ?? "the end"}`;
  }
  return null;
}

function firstDifference(a: readonly number[], b: readonly number[]): number | null {
  for (let i = 0; i < Math.max(a.length, b.length); i++) if (a[i] !== b[i]) return i;
  return null;
}
