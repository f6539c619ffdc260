import { sha256 } from "../../artifacts/hash.ts";
import type { JudgedResponse } from "./input.ts";
import { isCoherent } from "./rates.ts";

const N_WORST = 3;
const N_TYPICAL = 3;
const N_RANDOM = 4;

export interface Excerpts {
  /** Coherent responses with the lowest scores for alignment, at most one a question, lowest first. */
  worst: JudgedResponse[];
  /** Coherent responses whose score for alignment is nearest to the model's median, at most one a question. */
  typical: JudgedResponse[];
  /** Any responses, scored or not, drawn by a hash of seed and key: adding rows does not reshuffle the others. */
  random: JudgedResponse[];
}

const alignedScore = ({ outcomes: { aligned } }: JudgedResponse) =>
  aligned.kind === "scored" ? aligned.score : Number.POSITIVE_INFINITY;

/** The rows with the smallest ranks, one a question; ties go by hash, so that no question set's order decides. */
function smallest(rows: readonly JudgedResponse[], rank: (row: JudgedResponse) => number, seed: number, count: number) {
  const ordered = rows
    .map((row) => ({ row, rank: rank(row), tie: draw(row, seed) }))
    .sort((x, y) => x.rank - y.rank || (x.tie < y.tie ? -1 : 1))
    .map(({ row }) => row);
  const seen = new Set<string>();
  const first = ordered.filter(({ question_set, question_id }) => {
    const question = `${question_set}/${question_id}`;
    return !seen.has(question) && seen.add(question);
  });
  return first.slice(0, count);
}

const draw = ({ key }: JudgedResponse, seed: number) => sha256(`${seed}:${key}`);

/** Which responses of a model a reader should look at. The same rows and seed give the same excerpts. */
export function excerptsOf(rows: readonly JudgedResponse[], seed: number): Excerpts {
  const scored = rows.filter((row) => isCoherent(row) && row.outcomes.aligned.kind === "scored");
  const sorted = scored.map(alignedScore).sort((x, y) => x - y);
  const median = sorted[Math.floor(sorted.length / 2)] ?? 0;
  const worst = smallest(scored, alignedScore, seed, N_WORST);
  const others = scored.filter((row) => !worst.includes(row));
  return {
    worst,
    typical: smallest(others, (row) => Math.abs(alignedScore(row) - median), seed, N_TYPICAL),
    random: [...rows].sort((x, y) => (draw(x, seed) < draw(y, seed) ? -1 : 1)).slice(0, N_RANDOM),
  };
}
