import { join } from "node:path";
import type { PlannedEval } from "../../pipeline/handles.ts";
import { checkJudge } from "../../pipeline/plan-eval.ts";
import type { EvalFlags } from "../eval-wish.ts";
import type { Io } from "../io.ts";
import { pasteable, shortPath } from "../work.ts";
import { evaluate } from "./eval.ts";

export async function run([folders = []]: string[][], flags: EvalFlags, io: Io): Promise<unknown> {
  const { planned, seconds } = await evaluate(folders, flags, io, "sample");
  const responses = Object.fromEntries(
    planned.models.map((model) => [model.label, join(planned.dir, model.id, "responses.jsonl")]),
  );
  for (const [label, path] of Object.entries(responses)) io.say(`${label.padEnd(20)} ${shortPath(path)}`);
  io.say(
    canJudge(planned)
      ? `Next: vivarium judge ${pasteable(planned.dir)}`
      : "No judge here knows these answers; judge the rows with your own tools.",
  );
  return { eval: planned.dir, responses, seconds };
}

function canJudge(planned: PlannedEval): boolean {
  try {
    checkJudge(planned);
    return true;
  } catch {
    return false;
  }
}
