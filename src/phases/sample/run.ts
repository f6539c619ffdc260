import { existsSync } from "node:fs";
import { mkdir, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { writeJsonAtomic } from "../../artifacts/atomic.ts";
import { Journal } from "../../artifacts/journal.ts";
import { lockFolder } from "../../artifacts/lock.ts";
import { fileEntries, outputsExist, readManifest, writeManifest } from "../../artifacts/manifest.ts";
import { runJob } from "../../bridge/session.ts";
import { DriverError } from "../../errors.ts";
import type { EvalModel, PlannedEval } from "../../pipeline/handles.ts";
import { currentParity, requirePass, servedKey } from "../../pipeline/parity-record.ts";
import { sampledCounts } from "../../pipeline/rows.ts";
import { adapterGgufPath, baseGgufKey, baseGgufPath, modelCheckpoint } from "../../pipeline/served.ts";
import type { UnitContext, WorkUnit } from "../../pipeline/unit.ts";
import type { Workspace } from "../../pipeline/workspace.ts";
import type { Block, SampleJob } from "../../protocol/wire.ts";
import { Response } from "../../records/response.ts";
import { engineCommand } from "../../runtime/command.ts";
import { planBlocks, responseKey, type SampleBlock } from "./plan.ts";

const Served = z.strictObject({ served_key: z.string() });

export const sampleKey = (model: EvalModel): string => `sample ${model.label}`;

/** The unit that samples one model's responses through llama.cpp. Rows that are there already are not sampled again. */
export function sampleUnit(planned: PlannedEval, model: EvalModel, workspace: Workspace): WorkUnit {
  const dir = join(planned.dir, model.id);
  const manifest_path = join(dir, "sample.manifest.json");
  const blocks = planBlocks(planned, model);
  const questions = planned.question_sets.filter((set) => model.question_sets.includes(set.id));
  const n_questions = questions.reduce((sum, set) => sum + set.questions.length, 0);
  return {
    key: sampleKey(model),
    phase: "sample",
    needs: [
      `parity ${planned.name}`,
      baseGgufKey(planned.staged, planned.served_dtype, null),
      ...(model.run ? [`convert ${model.run.label}`] : []),
    ],
    output: join(dir, "responses.jsonl"),
    summary: `${n_questions} questions x ${model.samples} samples = ${n_questions * model.samples} responses, temperature ${planned.sampler.temperature}, at most ${planned.sampler.max_new_tokens} tokens`,
    isDone: async () => {
      const manifest = await readManifest(manifest_path);
      if (manifest === undefined || !(await outputsExist(dir, manifest))) return false;
      if ((await workspace.hashes.sha256(join(dir, "responses.jsonl"))) !== manifest.outputs[0]?.sha256) return false;
      const have = sampledCounts(manifest);
      if (model.question_sets.some((set) => (have[set] ?? 0) < model.samples)) return false;
      const record = await currentParity(planned, model, workspace).catch(() => undefined);
      return record?.verdict === "pass" && manifest.facts.served_key === servedKey(record.inputs);
    },
    run: (context) => sample({ planned, model, workspace, dir, blocks, manifest_path }, context),
  };
}

interface SampleWork {
  planned: PlannedEval;
  model: EvalModel;
  workspace: Workspace;
  dir: string;
  blocks: SampleBlock[];
  manifest_path: string;
}

async function sample(work: SampleWork, context: UnitContext): Promise<void> {
  const { planned, model, workspace, dir } = work;
  const started = performance.now();
  await using _lock = await lockFolder(dir);
  const served_key = servedKey((await requirePass(planned, model, workspace)).inputs);
  await setAsideForeignRows(dir, served_key);
  const before = sampledCounts(await readManifest(work.manifest_path));
  await rm(work.manifest_path, { force: true });
  await using journal = await Journal.open(join(dir, "responses.jsonl"), Response, (row) => row.key);
  validateTexts(work, journal.rows);
  const wanted = work.blocks.filter((block) =>
    wantedSamples(block, model.samples).some((i) => !journal.has(keyOf(block, i))),
  );
  const job = await sampleJob(work, wanted);
  const byKey = new Map(wanted.map((block) => [block.key, block]));
  const total = work.blocks.length * (work.blocks[0]?.seeds.length ?? 0);
  const report = () => context.progress({ done: journal.rows.length, total, of: "responses" });
  report();
  const { hello, result } = await runJob(job, {
    ...engineCommand(),
    signal: context.signal,
    log_dir: join(dir, "logs"),
    log_name: "sample",
    onEvent: async (event) => {
      if (event.type === "log" && event.level === "warning") context.warn(event.message);
      if (event.type !== "block") return;
      const block = byKey.get(event.key);
      if (block) await journal.append(responseRows(work, block, event));
      report();
    },
  });
  await rm(job.blocks_file, { force: true });
  await writeManifest(work.manifest_path, {
    schema_version: 1,
    kind: "sample",
    id: `${planned.id}/${model.id}`,
    status: "success",
    inputs: await fileEntries(dir, ["parity.json"]),
    outputs: await fileEntries(dir, ["responses.jsonl"]),
    code: workspace.code,
    packages: { ...hello.packages, runtime: hello.runtime },
    device: hello.device,
    seed: planned.seed,
    wall_seconds: (performance.now() - started) / 1000,
    facts: {
      samples: { ...before, ...Object.fromEntries(model.question_sets.map((set) => [set, model.samples])) },
      served_key,
      sampler: planned.sampler,
      scale: model.scale,
      response_tokens_this_time: result.response_tokens,
      num_threads: workspace.num_threads,
    },
  });
}

/**
 * Moves rows that other bytes produced into a folder of their own: an adapter that was trained again, or another release of
 * llama.cpp, begins a new journal. Nothing is deleted.
 */
async function setAsideForeignRows(dir: string, served_key: string): Promise<void> {
  const path = join(dir, "served.json");
  const found = await readFile(path, "utf8")
    .then((text) => Served.parse(JSON.parse(text)).served_key)
    .catch(() => undefined); // no such file, or a damaged one: whose rows these are is not known
  if (found === served_key) return;
  const aside = join(dir, `set-aside-${found?.slice(0, 8) ?? "unknown"}`);
  for (const name of ["sample.manifest.json", "judgements", "responses.jsonl"].filter((name) =>
    existsSync(join(dir, name)),
  )) {
    await mkdir(aside, { recursive: true });
    await rename(join(dir, name), join(aside, name));
  }
  await writeJsonAtomic(path, { served_key });
}

/**
 * Proves that the rows that are there say what their tokens say.
 *
 * @throws {DriverError} `ARTIFACT_CHANGED`: a row was edited since it was sampled.
 */
function validateTexts({ planned, dir }: SampleWork, rows: readonly Response[]): void {
  const edited = rows.find((row) => planned.staged.chat.decode(row.token_ids) !== row.text);
  if (edited === undefined) return;
  throw new DriverError(
    "ARTIFACT_CHANGED",
    `${join(dir, "responses.jsonl")}: expected the text of its tokens in ${edited.key}, got another one`,
    {
      hint: "The row was edited since it was sampled. Move the file away; its rows will be sampled again.",
      facts: { key: edited.key },
    },
  );
}

const keyOf = (block: SampleBlock, sample: number): string =>
  responseKey(block.question_set, block.question_id, sample);

/** Samples of a block that were asked for; the last block may hold more than that. */
function wantedSamples(block: SampleBlock, samples: number): number[] {
  return block.seeds.map((_, i) => block.first_sample + i).filter((sample) => sample < samples);
}

async function sampleJob(work: SampleWork, blocks: readonly SampleBlock[]): Promise<SampleJob> {
  const { planned, model, workspace, dir } = work;
  const checkpoint = await modelCheckpoint(model, workspace);
  const blocks_file = join(dir, ".blocks.json");
  await writeJsonAtomic(blocks_file, {
    blocks: blocks.map(({ key, prompt_ids, seeds }) => ({ key, prompt_ids, seeds })),
  });
  const longest = Math.max(1, ...work.blocks.map((block) => block.prompt_ids.length));
  return {
    type: "sample",
    base_gguf: baseGgufPath(planned.staged, planned.served_dtype, null, workspace),
    adapter: checkpoint === null ? null : { gguf: adapterGgufPath(checkpoint), scale: model.scale },
    blocks_file,
    sampler: planned.sampler,
    stop_token_ids: [...planned.staged.chat.stop_token_ids],
    context_tokens: longest + planned.sampler.max_new_tokens,
    num_threads: workspace.num_threads,
    gpu: workspace.gpu,
  };
}

function responseRows(work: SampleWork, block: SampleBlock, event: Block): Response[] {
  return event.responses
    .map((response, i): Response => {
      const sample = block.first_sample + i;
      return {
        key: keyOf(block, sample),
        question_set: block.question_set,
        question_id: block.question_id,
        paraphrase: block.paraphrase,
        sample,
        prompt_sha256: block.prompt_sha256,
        seed: block.seeds[i] as number,
        finish_reason: response.finish_reason,
        n_tokens: response.token_ids.length,
        token_ids: response.token_ids,
        text: work.planned.staged.chat.decode(response.token_ids),
      };
    })
    .filter((row) => row.sample < work.model.samples);
}
