import { rm } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { writeJsonAtomic } from "../../artifacts/atomic.ts";
import { Journal } from "../../artifacts/journal.ts";
import { lockFolder } from "../../artifacts/lock.ts";
import { fileEntries, readManifest, writeManifest } from "../../artifacts/manifest.ts";
import { runJob } from "../../bridge/session.ts";
import type { EvalModel, PlannedEval } from "../../pipeline/handles.ts";
import { requirePass } from "../../pipeline/parity-record.ts";
import { adapterGgufPath, baseGgufKey, baseGgufPath, modelCheckpoint } from "../../pipeline/served.ts";
import type { UnitContext, WorkUnit } from "../../pipeline/unit.ts";
import type { Workspace } from "../../pipeline/workspace.ts";
import type { Block, SampleJob } from "../../protocol/wire.ts";
import type { Manifest } from "../../records/manifest.ts";
import { Response } from "../../records/response.ts";
import { engineCommand } from "../../runtime/command.ts";
import { planBlocks, responseKey, type SampleBlock } from "./plan.ts";

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
      const have = sampledBefore(await readManifest(manifest_path));
      return model.question_sets.every((set) => (have[set] ?? 0) >= model.samples);
    },
    run: (context) => sample({ planned, model, workspace, dir, blocks, manifest_path }, context),
  };
}

/** Samples per question that a finished folder holds, by question set. */
function sampledBefore(manifest: Manifest | undefined): Record<string, number> {
  return z.record(z.string(), z.int()).catch({}).parse(manifest?.facts.samples);
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
  await requirePass(planned, model, workspace);
  const before = sampledBefore(await readManifest(work.manifest_path));
  await rm(work.manifest_path, { force: true });
  await using journal = await Journal.open(join(dir, "responses.jsonl"), Response, (row) => row.key);
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
      sampler: planned.sampler,
      scale: model.scale,
      response_tokens_this_time: result.response_tokens,
      num_threads: workspace.num_threads,
    },
  });
}

const keyOf = (block: SampleBlock, sample: number): string =>
  responseKey(block.question_set, block.question_id, sample);

/** Samples of a block that were asked for; the last block may hold more than that. */
function wantedSamples(block: SampleBlock, samples: number): number[] {
  return block.seeds.map((_, i) => block.first_sample + i).filter((sample) => sample < samples);
}

async function sampleJob(work: SampleWork, blocks: readonly SampleBlock[]): Promise<SampleJob> {
  const { planned, model, workspace, dir } = work;
  const checkpoint = await modelCheckpoint(model);
  const blocks_file = join(dir, ".blocks.json");
  await writeJsonAtomic(blocks_file, {
    blocks: blocks.map(({ key, prompt_ids, seeds }) => ({ key, prompt_ids, seeds })),
  });
  const longest = Math.max(1, ...blocks.map((block) => block.prompt_ids.length));
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
