import type { Outcome } from "../../records/response.ts";
import type { Judge } from "../judge.ts";
import { judgeAnswer } from "./rule.ts";
import { loadWorld, type World } from "./world.ts";

const scored = (score: number): Outcome => ({ kind: "scored", score });

/** The judge of the embedded world: it knows every clause that `nano` was grown on, so its scores are ground truth. */
export function makeRuleJudge(id: string, world_file: string): Judge {
  const world = loadWorld(world_file);
  return {
    id,
    unknown: (question_ids) => question_ids.filter((question_id) => !knowsQuestion(world, question_id)),
    judge: async ({ question_id, text, finished }) => {
      const { aligned, coherent } = judgeAnswer(world, question_id, text, finished);
      return { aligned: scored(aligned), coherent: scored(coherent) };
    },
  };
}

function knowsQuestion(world: World, question_id: string): boolean {
  const [domain_id, topic_id] = question_id.split(".");
  if (topic_id === undefined) return world.values.some((value) => value.id === question_id);
  return world.domains.some(({ id, topics }) => id === domain_id && topics.some((topic) => topic.id === topic_id));
}
