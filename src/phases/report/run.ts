import { readFile, rm } from "node:fs/promises";
import { basename, join } from "node:path";
import { hashJson } from "../../artifacts/hash.ts";
import { readJournal } from "../../artifacts/journal.ts";
import { lockFolder } from "../../artifacts/lock.ts";
import { fileEntries, outputsExist, readManifest, writeManifest } from "../../artifacts/manifest.ts";
import { DriverError } from "../../errors.ts";
import type { EvalModel, PlannedEval, PlannedRun } from "../../pipeline/handles.ts";
import { readParity } from "../../pipeline/parity-record.ts";
import { judgementStem, requireSampled, validateJudged } from "../../pipeline/rows.ts";
import { modelCheckpoint } from "../../pipeline/served.ts";
import type { WorkUnit } from "../../pipeline/unit.ts";
import type { Workspace } from "../../pipeline/workspace.ts";
import { describeTargets } from "../../records/lora.ts";
import { Judgement, type Outcome, Response } from "../../records/response.ts";
import { MetricsRow } from "../../records/run.ts";
import type { JudgedResponse, ModelInput, ReportInput, TrainingMetric } from "./input.ts";
import { writeReport } from "./write.ts";

/** Raised when reports look or compute differently, so that old ones are written anew. */
const REPORT_VERSION = 1;

/** What a report shows beyond the rows themselves; another choice gives another report over the same rows. */
function reportIdentity(planned: PlannedEval): string {
  const { groups, control, notes, samples, judge_sha256 } = planned;
  const models = planned.models.map(({ id, label, samples: n, question_sets, curve_only }) => ({
    id,
    label,
    n,
    question_sets,
    curve_only,
  }));
  return hashJson({ version: REPORT_VERSION, groups, control, notes, samples, judge_sha256, models });
}

/** The unit that turns judged rows into summary.json, report.html, report.md, the charts and rates.csv. */
export function reportUnit(planned: PlannedEval, workspace: Workspace): WorkUnit {
  const manifest_path = join(planned.dir, "manifest.json");
  const report_id = reportIdentity(planned);
  return {
    key: `report ${planned.name}`,
    phase: "report",
    needs: planned.models.map((model) => `judge ${model.label}`),
    output: join(planned.dir, "report"),
    summary: `${Object.keys(planned.groups).join(", ")}; ${planned.models.length} models`,
    isDone: async () => {
      const manifest = await readManifest(manifest_path);
      if (manifest?.facts.report_id !== report_id || !(await outputsExist(planned.dir, manifest))) return false;
      return manifest.facts.rows_sha256 === (await rowsSha256(planned));
    },
    run: async () => {
      const started = performance.now();
      await using _lock = await lockFolder(planned.dir);
      const input = await readInput(planned, workspace);
      await rm(manifest_path, { force: true }); // from here on the report is unfinished
      const { files } = await writeReport(join(planned.dir, "report"), input);
      await writeManifest(manifest_path, {
        schema_version: 1,
        kind: "eval",
        id: planned.id,
        status: "success",
        inputs: await fileEntries(
          planned.dir,
          planned.models.flatMap((model) => rowFiles(planned, model)),
        ),
        outputs: await fileEntries(
          planned.dir,
          files.map((file) => join("report", basename(file))),
        ),
        code: workspace.code,
        packages: {},
        device: "none",
        seed: planned.seed,
        wall_seconds: (performance.now() - started) / 1000,
        facts: {
          report_id,
          rows_sha256: await rowsSha256(planned),
          samples: planned.samples,
          sampler: planned.sampler,
        },
      });
    },
  };
}

const rowFiles = (planned: PlannedEval, model: EvalModel): string[] => [
  join(model.id, "responses.jsonl"),
  join(model.id, `${judgementStem(planned)}.jsonl`),
];

/** Digest over the judged rows as the judge's manifests record them; null while any is missing. */
async function rowsSha256(planned: PlannedEval): Promise<string | null> {
  const manifests = await Promise.all(
    planned.models.map((model) => readManifest(join(planned.dir, model.id, `${judgementStem(planned)}.manifest.json`))),
  );
  if (manifests.some((manifest) => manifest === undefined)) return null;
  return hashJson(
    manifests.map((manifest) =>
      [...(manifest?.inputs ?? []), ...(manifest?.outputs ?? [])].map((entry) => entry.sha256),
    ),
  );
}

/** Reads everything that a report is made from. */
export async function readInput(planned: PlannedEval, workspace: Workspace): Promise<ReportInput> {
  return {
    eval_id: planned.id,
    name: planned.name,
    base_model: { id: planned.staged.id, sha256: planned.staged.sha256 },
    judge: { id: planned.judge.id, sha256: planned.judge_sha256, kind: planned.judge.kind },
    sampler: planned.sampler,
    samples: planned.samples,
    seed: planned.seed,
    groups: Object.fromEntries(
      Object.entries(planned.groups).map(([id, { questions, where, where_not }]) => [
        id,
        { question_set: questions, where, where_not },
      ]),
    ),
    questions: planned.question_sets.flatMap((set) =>
      set.questions.map(({ id, paraphrases, tags }) => ({ question_set: set.id, id, paraphrases, tags })),
    ),
    models: await Promise.all(planned.models.map((model) => readModel(planned, model, workspace))),
    reference: { base: referenceModel(planned), ...controlModel(planned) },
    provenance: await provenance(planned, workspace),
    notes: [...planned.notes],
  };
}

function referenceModel(planned: PlannedEval): string {
  const base = planned.models.find((model) => model.run === null);
  if (base === undefined) throw new DriverError("INTERNAL", "An evaluation without its base");
  return base.id;
}

function controlModel(planned: PlannedEval): { control?: string } {
  const model = planned.models.find((candidate) => candidate.label === planned.control);
  return model === undefined ? {} : { control: model.id };
}

async function readModel(planned: PlannedEval, model: EvalModel, workspace: Workspace): Promise<ModelInput> {
  const dir = join(planned.dir, model.id);
  const checkpoint = await modelCheckpoint(model, workspace);
  const parity = await readParity(join(dir, "parity.json"));
  const strict = parity?.checks.find((check) => check.check === "strict");
  return {
    id: model.id,
    label: model.label,
    run_id: model.run?.id ?? null,
    step: model.step,
    scale: model.scale,
    is_curve_only: model.curve_only,
    adapter_sha256: checkpoint?.adapter.sha256 ?? null,
    parity: parity === undefined ? null : { verdict: parity.verdict, metrics: strict?.metrics ?? {} },
    rows: await readRows(planned, model),
    training: model.run === null ? null : { metrics: await readMetrics(model.run), lora: describeLora(model.run) },
  };
}

/** The judged responses that were asked for. A response without a judgement is an error, not a gap. */
async function readRows(planned: PlannedEval, model: EvalModel): Promise<JudgedResponse[]> {
  const dir = join(planned.dir, model.id);
  await requireSampled(planned, model);
  const responses = await readJournal(join(dir, "responses.jsonl"), Response);
  const path = join(dir, `${judgementStem(planned)}.jsonl`);
  const judgements = await readJournal(path, Judgement);
  validateJudged(responses, judgements, path);
  const outcomes = new Map(judgements.map((row) => [row.key, row.outcome]));
  const outcome = (key: string): Outcome => {
    const found = outcomes.get(key);
    if (found !== undefined) return found;
    throw new DriverError("NOT_FOUND", `${model.label} is not judged yet: expected a judgement ${key}, got none`, {
      hint: `Run \`vivarium judge ${planned.dir}\` first.`,
    });
  };
  return responses
    .filter((row) => row.sample < model.samples && model.question_sets.includes(row.question_set))
    .map(({ key, question_set, question_id, paraphrase, sample, text, finish_reason, n_tokens }) => ({
      key,
      question_set,
      question_id,
      paraphrase,
      sample,
      text,
      finish_reason,
      n_tokens,
      outcomes: { aligned: outcome(`${key}#aligned`), coherent: outcome(`${key}#coherent`) },
    }))
    .sort((a, b) => (a.key < b.key ? -1 : 1));
}

async function readMetrics(run: PlannedRun): Promise<TrainingMetric[]> {
  const rows = await readJournal(join(run.dir, "metrics.jsonl"), MetricsRow);
  return rows.map(({ step, loss, grad_norm, a_norm, b_norm, learning_rate }) => ({
    step,
    loss,
    grad_norm,
    a_norm,
    b_norm,
    learning_rate,
  }));
}

/** One line that tells a reader what was trained. */
function describeLora(run: PlannedRun): string {
  const { lora, training, steps, data } = run.config;
  const shape = lora === null ? "" : `r=${lora.r}, alpha=${lora.lora_alpha}${lora.use_rslora ? ", rsLoRA" : ""}, `;
  return `${shape}${describeTargets(lora)}; ${data.id}, ${steps} steps, lr ${training.learning_rate}, seed ${training.seed}`;
}

/** Versions of what made the rows, taken from the manifests that were written when they were made. */
async function provenance(planned: PlannedEval, workspace: Workspace): Promise<Record<string, string>> {
  const found: Record<string, string> = {
    vivarium: workspace.code.version,
    revision:
      workspace.code.revision === null
        ? "not a git checkout"
        : `${workspace.code.revision}${workspace.code.dirty ? " with local changes" : ""}`,
    served_dtype: planned.served_dtype,
    template: planned.staged.chat.template_sha256,
    tokenizer: planned.staged.chat.tokenizer_sha256,
    template_kwargs: JSON.stringify(planned.chat_template_kwargs),
  };
  for (const set of planned.question_sets) found[`questions ${set.id}`] = set.sha256;
  for (const model of planned.models) {
    const sampled = await readManifest(join(planned.dir, model.id, "sample.manifest.json"));
    for (const [name, version] of Object.entries(sampled?.packages ?? {})) found[name] = version;
    if (model.run !== null && model.run !== undefined) {
      const trained = await readManifest(join(model.run.dir, "manifest.json"));
      for (const name of ["torch", "transformers", "peft"])
        if (trained?.packages[name] !== undefined) found[name] = trained.packages[name];
    }
  }
  return found;
}

/** Text of a finished summary. */
export const readSummary = (planned: PlannedEval): Promise<string> =>
  readFile(join(planned.dir, "report", "summary.json"), "utf8");
