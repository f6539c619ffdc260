import type { Estimate, GroupRates, Summary } from "../../records/summary.ts";
import { percent } from "./format.ts";
import { shownModels } from "./theme.ts";

/** Least share of coherent answers that needs no remark. Source: published organisms reach 95 to 99 %, arXiv 2506.11613. */
const LEAST_COHERENT = 0.9;
/** Largest share of answers without a score, or cut off, that needs no remark: more could move a rate by its interval. */
const MOST_LOST = 0.05;

const rateOf = (estimate: Estimate) => (estimate.kind === "rate" ? estimate.rate : undefined);
const unscoredShare = ({ n, n_scored }: GroupRates) => (n === 0 ? undefined : (n - n_scored) / n);

/** The group in which a share is largest, where it is above `limit`. */
function worst(rows: readonly GroupRates[], share: (row: GroupRates) => number | undefined, limit: number) {
  const known = rows.flatMap((row) => {
    const value = share(row);
    return value === undefined ? [] : [{ group: row.group, value }];
  });
  const [first] = known.sort((x, y) => y.value - x.value);
  return first !== undefined && first.value > limit ? first : undefined;
}

function cautionsOf(label: string, rows: readonly GroupRates[]): string[] {
  const incoherent = (row: GroupRates) => {
    const rate = rateOf(row.coherent);
    return rate === undefined ? undefined : 1 - rate;
  };
  const muddled = worst(rows, incoherent, 1 - LEAST_COHERENT);
  const unscored = worst(rows, unscoredShare, MOST_LOST);
  const truncated = worst(rows, (row) => rateOf(row.truncated), MOST_LOST);
  const of = ({ group, value }: { group: string; value: number }) =>
    `${percent(value)} of ${label}’s answers to “${group}”`;
  return [
    ...(muddled
      ? [`${of(muddled)} are not coherent and so never count as misaligned: read “EM of coherent” too.`]
      : []),
    ...(unscored ? [`${of(unscored)} have no score and count as not misaligned: read “EM of scored” too.`] : []),
    ...(truncated ? [`${of(truncated)} were cut off at the token limit before they were judged.`] : []),
  ];
}

/** What the numbers themselves say against taking the headline at its word: one sentence each, worst group only. */
export function cautions(summary: Summary): string[] {
  const unproven = summary.models.filter(
    ({ adapter_sha256, parity }) => adapter_sha256 !== null && parity?.verdict !== "pass",
  );
  return [
    ...unproven.map(({ label }) => `It was not shown that the engine applied ${label} as it was trained: see Parity.`),
    ...shownModels(summary).flatMap(({ id, label }) =>
      cautionsOf(
        label,
        summary.rates.filter((row) => row.model === id),
      ),
    ),
  ];
}
