/** Times faster, from CPU seconds that were measured in the same round. */
export interface Ratio {
  median: number;
  min: number;
  max: number;
  /** Rounds that it is taken over. */
  rounds: number;
}

export function median(values: readonly number[]): number {
  if (values.length === 0) throw new RangeError("the median of nothing");
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle] as number;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] as number) + upper) / 2;
}

/** How many times faster `ours` is, round by round. */
export function ratio(baseline: readonly number[], ours: readonly number[]): Ratio {
  if (baseline.length !== ours.length)
    throw new RangeError(`expected as many rounds on both sides, got ${baseline.length} and ${ours.length}`);
  const ratios = baseline.map((seconds, round) => seconds / (ours[round] as number));
  return { median: median(ratios), min: Math.min(...ratios), max: Math.max(...ratios), rounds: ratios.length };
}

/** Sums over the epochs, for each step of an epoch: `[step + epoch * steps_per_epoch]` to `[step]`. */
export function sumEpochs(seconds: readonly number[], steps_per_epoch: number): number[] {
  const sums = new Array<number>(steps_per_epoch).fill(0);
  for (const [index, value] of seconds.entries())
    sums[index % steps_per_epoch] = value + at(sums, index % steps_per_epoch);
  return sums;
}

/** Largest absolute difference at equal places. */
export function maxDifference(left: readonly number[], right: readonly number[]): number {
  return Math.max(...left.map((value, index) => Math.abs(value - at(right, index))));
}

function at(values: readonly number[], index: number): number {
  const value = values[index];
  if (value === undefined) throw new RangeError(`no value at ${index} of ${values.length}`);
  return value;
}
