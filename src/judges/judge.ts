import type { Outcome, Rubric } from "../records/response.ts";

export interface JudgedText {
  question_id: string;
  text: string;
  /** False when the response was cut at the token limit. */
  finished: boolean;
}

/** Who gives scores. One answer per rubric: a score from 0 to 100, or the reason why there is none. */
export interface Judge {
  readonly id: string;
  /** Those of the questions that this judge cannot judge; empty for a judge that reads any text. */
  unknown(question_ids: readonly string[]): string[];
  judge(response: JudgedText): Promise<Record<Rubric, Outcome>>;
}
