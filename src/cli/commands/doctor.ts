import { existsSync } from "node:fs";
import { access, constants, mkdir, mkdtemp, rm, statfs, writeFile } from "node:fs/promises";
import { availableParallelism, freemem, tmpdir, totalmem } from "node:os";
import { join } from "node:path";
import pc from "picocolors";
import { listGpus } from "../../bridge/machine.ts";
import { runJob } from "../../bridge/session.ts";
import { DriverError } from "../../errors.ts";
import { convertBaseUnit } from "../../phases/convert/convert.ts";
import { stageModel } from "../../phases/stage/stage.ts";
import { SAMPLER_DEFAULTS } from "../../records/experiment.ts";
import { engineCommand } from "../../runtime/command.ts";
import { makeLibrary, makeWorkspace, vivariumHome } from "../environment.ts";
import type { Io } from "../io.ts";
import { toDriverError } from "../render/error.ts";

interface Finding {
  name: string;
  state: "ok" | "note" | "missing";
  detail: string;
  hint?: string;
}

/** The Python environment takes this much (torch's CUDA build, which also runs on the CPU). Measured: 5.4 GB. */
const ENVIRONMENT_BYTES = 6e9;

const gigabytes = (bytes: number): string => `${(bytes / 1e9).toFixed(1)} GB`;

async function checkHome(): Promise<Finding> {
  const home = vivariumHome();
  try {
    await mkdir(home, { recursive: true });
    await access(home, constants.W_OK);
    const { bavail, bsize } = await statfs(home);
    const free = bavail * bsize;
    const detail = `${home}, ${gigabytes(free)} free`;
    if (free > ENVIRONMENT_BYTES || existsSync(join(home, "python")))
      return { name: "VIVARIUM_HOME", state: "ok", detail };
    return {
      name: "VIVARIUM_HOME",
      state: "missing",
      detail,
      hint: `Expected ${gigabytes(ENVIRONMENT_BYTES)} for the Python environment. Free some, or set VIVARIUM_HOME to another disk.`,
    };
  } catch (cause) {
    return {
      name: "VIVARIUM_HOME",
      state: "missing",
      detail: `${home}: ${(cause as Error).message}`,
      hint: "Set VIVARIUM_HOME to a folder that you can write.",
    };
  }
}

async function checkPython(io: Io): Promise<Finding> {
  try {
    const workspace = await makeWorkspace(".", io);
    return { name: "Python bridge", state: "ok", detail: await workspace.python() };
  } catch (cause) {
    const error = cause as DriverError;
    return {
      name: "Python bridge",
      state: "missing",
      detail: error.message,
      ...(error.hint === undefined ? {} : { hint: error.hint }),
    };
  }
}

/** Loads the embedded model through llama.cpp and samples a few tokens: a binary that is there may still not run. */
async function checkEngine(io: Io): Promise<Finding> {
  const name = "llama.cpp";
  try {
    return { name, state: "ok", detail: await sampleOnce(io) };
  } catch (cause) {
    const { message, hint } = toDriverError(cause);
    return {
      name,
      state: "missing",
      detail: message,
      hint: hint ?? "Install again with `npm ci`; the package @node-llama-cpp/<platform> carries it.",
    };
  }
}

async function sampleOnce(io: Io): Promise<string> {
  const workspace = await makeWorkspace(".", io);
  const { id, dir } = await makeLibrary().model("nano");
  const staged = await stageModel(dir, workspace, id);
  const base = convertBaseUnit(staged, "bf16", null, workspace);
  if (!(await base.isDone())) await base.run({ signal: io.signal, progress: () => {}, warn: () => {} });
  const prompt_ids = staged.chat.promptIds([{ role: "user", content: "How do I keep bread fresh?" }], {});
  const scratch = await mkdtemp(join(tmpdir(), "vivarium-doctor-"));
  const blocks_file = join(scratch, "blocks.json");
  await writeFile(blocks_file, JSON.stringify({ blocks: [{ key: "doctor", prompt_ids, seeds: [1, 2] }] }));
  try {
    const { hello, result } = await runJob(
      {
        type: "sample",
        base_gguf: base.output,
        adapter: null,
        blocks_file,
        sampler: { ...SAMPLER_DEFAULTS, max_new_tokens: 8 },
        stop_token_ids: [...staged.chat.stop_token_ids],
        context_tokens: prompt_ids.length + 8,
        num_threads: 1,
        gpu: workspace.gpu,
      },
      { ...engineCommand(), signal: io.signal, log_dir: scratch, log_name: "doctor" },
    );
    const versions = Object.entries(hello.packages).map(([name, version]) => `${name} ${version}`);
    return `${versions.join(", ")}, ${hello.device}, sampled ${result.response_tokens} tokens`;
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

async function checkGpu(): Promise<Finding> {
  const gpus = await listGpus();
  if (gpus.length > 0) return { name: "GPU", state: "ok", detail: gpus.join("; ") };
  return { name: "GPU", state: "note", detail: "none found; training and serving run on the CPU" };
}

async function checkModel(): Promise<Finding> {
  const { dir } = await makeLibrary().model("nano");
  const there = existsSync(join(dir, "model.safetensors"));
  return there
    ? { name: "embedded model", state: "ok", detail: dir }
    : { name: "embedded model", state: "missing", detail: `${dir} has no weights`, hint: "Install vivarium again." };
}

/** @throws {DriverError} `PYTHON_MISSING` and the like are findings here; the command ends with 3 when anything is missing. */
export async function run(_args: string[][], _options: object, io: Io): Promise<unknown> {
  const findings: Finding[] = [
    { name: "Node", state: "ok", detail: process.versions.node },
    {
      name: "machine",
      state: "ok",
      detail: `${availableParallelism()} cores, ${gigabytes(freemem())} of ${gigabytes(totalmem())} memory free`,
    },
    await checkHome(),
    await checkPython(io),
    await checkEngine(io),
    await checkGpu(),
    await checkModel(),
  ];
  const mark = { ok: pc.green("ok     "), note: pc.yellow("note   "), missing: pc.red("missing") };
  for (const { name, state, detail, hint } of findings) {
    io.say(`${mark[state]}  ${name.padEnd(16)} ${detail}`);
    if (hint !== undefined) io.say(`         ${"".padEnd(16)} ${hint}`);
  }
  const missing = findings.filter((finding) => finding.state === "missing");
  if (missing.length > 0) {
    const [first] = missing;
    throw new DriverError("MACHINE_LACKS", `This machine lacks: ${missing.map((finding) => finding.name).join(", ")}`, {
      ...(first?.hint === undefined ? {} : { hint: first.hint }),
      facts: { findings },
    });
  }
  return { findings };
}
