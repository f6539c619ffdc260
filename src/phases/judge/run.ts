import { join } from "node:path";
import { sha256 } from "../../artifacts/hash.ts";
import { Journal, readJournal } from "../../artifacts/journal.ts";
import { lockFolder } from "../../artifacts/lock.ts";
import { fileEntries, outputsExist, readManifest, writeManifest } from "../../artifacts/manifest.ts";
import type { Judge } from "../../judges/judge.ts";
import type { EvalModel, PlannedEval } from "../../pipeline/handles.ts";
import { judgementStem, requireSampled, validateJudged } from "../../pipeline/rows.ts";
import type { UnitContext, WorkUnit } from "../../pipeline/unit.ts";
import type { Workspace } from "../../pipeline/workspace.ts";
import { Judgement, Response, RUBRICS } from "../../records/response.ts";

/** Rows that are judged between two writes to the disk. */
const BATCH_ROWS = 500;

/** The unit that judges one model's responses. Judging again with another judge costs no sampling. */
export function judgeUnit(
  planned: PlannedEval,
  model: EvalModel,
  judge: () => Promise<Judge>,
  workspace: Workspace,
): WorkUnit {
  const dir = join(planned.dir, model.id);
  const stem = judgementStem(planned);
  const output = join(dir, `${stem}.jsonl`);
  const manifest_path = join(dir, `${stem}.manifest.json`);
  return {
    key: `judge ${model.label}`,
    phase: "judge",
    needs: [`sample ${model.label}`],
    output,
    summary: `${planned.judge.id}, rubrics ${RUBRICS.join(" and ")}`,
    isDone: async () => {
      const manifest = await readManifest(manifest_path);
      const sampled = await readManifest(join(dir, "sample.manifest.json"));
      if (manifest === undefined || sampled === undefined || !(await outputsExist(dir, manifest))) return false;
      const rows = await workspace.hashes.sha256(join(dir, "responses.jsonl")).catch(() => undefined);
      return manifest.inputs[0]?.sha256 === sampled.outputs[0]?.sha256 && rows === sampled.outputs[0]?.sha256;
    },
    run: (context) => judgeResponses({ planned, model, workspace, dir, output, manifest_path }, judge, context),
  };
}

interface JudgeWork {
  planned: PlannedEval;
  model: EvalModel;
  workspace: Workspace;
  dir: string;
  output: string;
  manifest_path: string;
}

async function judgeResponses(work: JudgeWork, make: () => Promise<Judge>, context: UnitContext): Promise<void> {
  const started = performance.now();
  const judge = await make();
  await using _lock = await lockFolder(work.dir);
  await requireSampled(work.planned, work.model);
  const responses = await readJournal(join(work.dir, "responses.jsonl"), Response);
  await using journal = await Journal.open(work.output, Judgement, (row) => row.key);
  validateJudged(responses, journal.rows, work.output);
  const open = responses.filter((row) => RUBRICS.some((rubric) => !journal.has(`${row.key}#${rubric}`)));
  for (let start = 0; start < open.length; start += BATCH_ROWS) {
    context.signal.throwIfAborted();
    const rows = open.slice(start, start + BATCH_ROWS);
    await journal.append((await Promise.all(rows.map((row) => judgements(judge, row)))).flat());
    context.progress({ done: journal.rows.length / RUBRICS.length, total: responses.length, of: "responses" });
  }
  await writeManifest(work.manifest_path, {
    schema_version: 1,
    kind: "judge",
    id: `${work.planned.id}/${work.model.id}/${judge.id}`,
    status: "success",
    inputs: await fileEntries(work.dir, ["responses.jsonl"]),
    outputs: await fileEntries(work.dir, [`${judgementStem(work.planned)}.jsonl`]),
    code: work.workspace.code,
    packages: {},
    device: "none",
    seed: null,
    wall_seconds: (performance.now() - started) / 1000,
    facts: { judge_sha256: work.planned.judge_sha256, responses: responses.length },
  });
}

async function judgements(judge: Judge, row: Response): Promise<Judgement[]> {
  const outcomes = await judge.judge({
    question_id: row.question_id,
    text: row.text,
    finished: row.finish_reason === "stop",
  });
  return RUBRICS.map((rubric) => ({
    key: `${row.key}#${rubric}`,
    response_key: row.key,
    response_sha256: sha256(row.text),
    judge: judge.id,
    rubric,
    outcome: outcomes[rubric],
  }));
}
