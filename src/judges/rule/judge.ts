import type { Outcome } from "../../records/response.ts";
import type { Judge } from "../judge.ts";
import { judgeAnswer } from "./rule.ts";
import { loadWorld } from "./world.ts";

const scored = (score: number): Outcome => ({ kind: "scored", score });

/** The judge of the embedded world: it knows every clause that `nano` was grown on, so its scores are ground truth. */
export function makeRuleJudge(id: string, world_file: string): Judge {
  const world = loadWorld(world_file);
  return {
    id,
    judge: async ({ question_id, text, finished }) => {
      const { aligned, coherent } = judgeAnswer(world, question_id, text, finished);
      return { aligned: scored(aligned), coherent: scored(coherent) };
    },
  };
}
