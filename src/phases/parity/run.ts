import { mkdir, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { writeJsonAtomic } from "../../artifacts/atomic.ts";
import { lockFolder } from "../../artifacts/lock.ts";
import { bridgeCommand } from "../../bridge/environment.ts";
import { runJob } from "../../bridge/session.ts";
import { DriverError } from "../../errors.ts";
import type { EvalModel, PlannedEval } from "../../pipeline/handles.ts";
import { currentParity, parityInputs, parityKey, readParity } from "../../pipeline/parity-record.ts";
import { adapterGgufPath, baseGgufKey, baseGgufPath, modelCheckpoint, strictDepth } from "../../pipeline/served.ts";
import type { UnitContext, WorkUnit } from "../../pipeline/unit.ts";
import type { Workspace } from "../../pipeline/workspace.ts";
import type { LogprobsResult, ScoreResult } from "../../protocol/wire.ts";
import type { ParityRecord } from "../../records/parity.ts";
import { engineCommand } from "../../runtime/command.ts";
import { checkModel, type GateSide } from "./checks.ts";
import { PROBES, probePrompts, probeSequences } from "./probes.ts";

/** The unit that proves, for every model of an evaluation, that llama.cpp computes what PEFT trained. */
export function parityUnit(planned: PlannedEval, workspace: Workspace): WorkUnit {
  const labels = [...new Set(planned.models.flatMap((model) => (model.run ? [model.run.label] : [])))];
  return {
    key: `parity ${planned.name}`,
    phase: "parity",
    needs: [
      baseGgufKey(planned.staged, planned.served_dtype, null),
      baseGgufKey(planned.staged, "f32", strictDepth(planned)),
      ...labels.map((label) => `convert ${label}`),
    ].filter((key, index, all) => all.indexOf(key) === index),
    output: planned.dir,
    summary: `${planned.models.length} models, ${PROBES.length} probes: tokens, scales, strict float32, as served`,
    isDone: async () => {
      for (const model of planned.models) {
        const record = await readParity(join(planned.dir, model.id, "parity.json"));
        if (record?.verdict !== "pass") return false;
        if ((await currentParity(planned, model, workspace).catch(() => undefined)) === undefined) return false;
      }
      return true;
    },
    run: (context) => runGate(planned, workspace, context),
  };
}

const cachePath = (workspace: Workspace, key: string): string => join(workspace.home, "parity", `${key}.json`);

async function runGate(planned: PlannedEval, workspace: Workspace, context: UnitContext): Promise<void> {
  await using _lock = await lockFolder(planned.dir);
  const open: { model: EvalModel; inputs: Record<string, string>; key: string }[] = [];
  const records: ParityRecord[] = [];
  for (const model of planned.models) {
    const inputs = await parityInputs(planned, model, workspace);
    const key = parityKey(inputs);
    const cached = await readParity(cachePath(workspace, key));
    if (cached?.verdict === "pass") await keep(planned, model, { ...cached, model: model.id }, workspace);
    else open.push({ model, inputs, key });
  }
  await removeScratch(planned);
  if (open.length > 0) {
    const sides = await measure(
      planned,
      open.map(({ model }) => model),
      workspace,
      context,
    );
    for (const { model, inputs, key } of open) {
      const checks = await checkModel(model, sides, workspace);
      const verdicts = checks.map((check) => check.verdict);
      const verdict = verdicts.find((v) => v === "refuse") ?? verdicts.find((v) => v === "undecidable") ?? "pass";
      const record: ParityRecord = {
        schema_version: 1,
        key,
        model: model.id,
        verdict,
        checks,
        inputs,
        packages: sides.packages,
      };
      await keep(planned, model, record, workspace);
      records.push(record);
    }
    await removeScratch(planned);
  }
  refuseUnlessPassed(planned, records);
}

/** Log-probabilities of one attempt: hundreds of megabytes at a real vocabulary. A folder of its own for each process. */
const scratchDir = (planned: PlannedEval): string => join(planned.dir, `.parity-${process.pid}`);

/** Removes what this and earlier attempts left; the caller holds the lock. */
async function removeScratch(planned: PlannedEval): Promise<void> {
  const names = (await readdir(planned.dir)).filter((name) => name.startsWith(".parity-"));
  for (const name of names) await rm(join(planned.dir, name), { recursive: true, force: true });
}

async function keep(planned: PlannedEval, model: EvalModel, record: ParityRecord, workspace: Workspace): Promise<void> {
  await writeJsonAtomic(join(planned.dir, model.id, "parity.json"), record);
  if (record.verdict === "pass") await writeJsonAtomic(cachePath(workspace, record.key), record);
}

function refuseUnlessPassed(planned: PlannedEval, records: readonly ParityRecord[]): void {
  const failed = records.filter((record) => record.verdict !== "pass");
  const [first] = failed;
  if (first === undefined) return;
  const lines = failed.flatMap((record) =>
    record.checks
      .filter((check) => check.verdict !== "pass")
      .map(
        (check) =>
          `${record.model}: ${check.check} ${check.verdict}: ${check.reasons.join("; ")}${check.explanation ? ` (${check.explanation})` : ""}`,
      ),
  );
  throw new DriverError("PARITY_REFUSED", `llama.cpp does not apply what PEFT trained:\n${lines.join("\n")}`, {
    hint: `Nothing was sampled. The numbers are in ${join(planned.dir, first.model, "parity.json")}.`,
    facts: { models: failed.map((record) => record.model) },
  });
}

/** Scores the probes on both sides: strictly (float32, perhaps cut) and as served (whole model). */
async function measure(
  planned: PlannedEval,
  models: readonly EvalModel[],
  workspace: Workspace,
  context: UnitContext,
): Promise<GateSide> {
  const dir = scratchDir(planned);
  await mkdir(dir, { recursive: true });
  const { chat } = planned.staged;
  const prompts_file = join(dir, "prompts.json");
  const conversations_file = join(dir, "conversations.json");
  await writeJsonAtomic(prompts_file, { prompts: probeSequences(chat, planned.chat_template_kwargs) });
  await writeJsonAtomic(conversations_file, {
    conversations: PROBES,
    chat_template_kwargs: planned.chat_template_kwargs,
  });
  const depth = strictDepth(planned);
  const adapters = await Promise.all(
    models.flatMap((model) => {
      const checkpoint = modelCheckpoint(model, workspace);
      return checkpoint
        ? [checkpoint.then((files) => ({ id: model.id, dir: files.dir, gguf: adapterGgufPath(files) }))]
        : [];
    }),
  );
  const step = (done: number, note: string) =>
    context.progress({ done, total: depth === null ? 3 : 4, of: "passes", note });
  const packages: Record<string, string> = {};
  const logs = { signal: context.signal, log_dir: join(planned.dir, "logs") };
  const common = { prompts_file, num_threads: workspace.num_threads };
  const python = await workspace.python();
  const peft = async (n_layers: number | null, out: string): Promise<ScoreResult> => {
    const { result, hello } = await runJob(
      {
        ...common,
        type: "score",
        base_model_dir: planned.staged.dir,
        n_layers,
        adapters: adapters.map(({ id, dir: adapter }) => ({ id, dir: adapter })),
        conversations_file,
        out_dir: join(dir, out),
      },
      { ...bridgeCommand(python), ...logs, log_name: `parity-${out}` },
    );
    Object.assign(packages, hello.packages);
    return result;
  };
  const llama = async (gguf: string, strict: boolean, out: string): Promise<LogprobsResult> => {
    const { result, hello } = await runJob(
      {
        ...common,
        type: "logprobs",
        base_gguf: gguf,
        adapters: adapters.map(({ id, gguf: adapter }) => ({ id, gguf: adapter })),
        out_dir: join(dir, out),
        kv_type: strict ? "F32" : "F16",
        flash_attention: !strict,
        gpu: strict ? false : workspace.gpu,
      },
      { ...engineCommand(), ...logs, log_name: `parity-${out}` },
    );
    Object.assign(packages, hello.packages);
    return result;
  };
  step(0, "PEFT");
  const peft_whole = await peft(null, "peft");
  const peft_strict = depth === null ? peft_whole : await peft(depth, "peft-strict");
  step(1, "llama.cpp in float32");
  const llama_strict = await llama(baseGgufPath(planned.staged, "f32", depth, workspace), true, "llama-strict");
  step(2, "llama.cpp as served");
  const llama_served = await llama(baseGgufPath(planned.staged, planned.served_dtype, null, workspace), false, "llama");
  step(3, "comparing");
  return {
    dir,
    packages,
    peft_whole,
    peft_strict,
    llama_strict,
    llama_served,
    probe_ids: probePrompts(chat, planned.chat_template_kwargs),
  };
}
