/**
 * P values adjusted so that rejecting those below q keeps the expected share of false rejections below q; same order.
 *
 * Source: Benjamini & Hochberg, "Controlling the false discovery rate", J. R. Stat. Soc. B 57 (1995).
 */
export function benjaminiHochberg(p: readonly number[]): number[] {
  const order = p.map((value, index) => ({ value, index })).sort((x, y) => y.value - x.value);
  const adjusted = new Array<number>(p.length);
  let smallest = 1;
  for (const [fromLargest, { value, index }] of order.entries()) {
    smallest = Math.min(smallest, value * (p.length / (p.length - fromLargest)));
    adjusted[index] = smallest;
  }
  return adjusted;
}
