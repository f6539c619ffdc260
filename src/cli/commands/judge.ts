import { join } from "node:path";
import { checkJudge } from "../../pipeline/plan-eval.ts";
import { evalUnits, linkUnits } from "../../pipeline/plan-experiment.ts";
import { judgementStem } from "../../pipeline/rows.ts";
import { openEval, saveEval } from "../../pipeline/saved.ts";
import { makeLibrary, makeWorkspace } from "../environment.ts";
import type { Io } from "../io.ts";
import { absoluteName, pasteable, runUnits, shortPath } from "../work.ts";

export async function run([[folder = ""] = []]: string[][], options: { judge?: string }, io: Io): Promise<unknown> {
  const library = makeLibrary();
  const workspace = await makeWorkspace(".", io);
  const { planned, plan } = await openEval(
    folder,
    library,
    workspace,
    options.judge === undefined ? undefined : absoluteName(options.judge),
  );
  checkJudge(planned);
  const units = evalUnits(planned, workspace).filter((unit) => unit.phase === "judge");
  await runUnits(linkUnits(units), 1, io);
  await saveEval(planned, plan);
  const judgements = Object.fromEntries(
    planned.models.map((model) => [model.label, join(planned.dir, model.id, `${judgementStem(planned)}.jsonl`)]),
  );
  for (const [label, path] of Object.entries(judgements)) io.say(`${label.padEnd(20)} ${shortPath(path)}`);
  io.say(`Next: vivarium report ${pasteable(planned.dir)}`);
  return { eval: planned.dir, judge: planned.judge.id, judge_sha256: planned.judge_sha256, judgements };
}
