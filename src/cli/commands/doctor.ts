import { existsSync } from "node:fs";
import { access, constants, mkdir, mkdtemp, rm, statfs, writeFile } from "node:fs/promises";
import { availableParallelism, freemem, tmpdir, totalmem } from "node:os";
import { join } from "node:path";
import pc from "picocolors";
import { findBridge, findPython } from "../../bridge/environment.ts";
import { listGpus } from "../../bridge/machine.ts";
import { runJob } from "../../bridge/session.ts";
import { DriverError } from "../../errors.ts";
import { convertBaseUnit } from "../../phases/convert/convert.ts";
import { stageModel } from "../../phases/stage/stage.ts";
import { SAMPLER_DEFAULTS } from "../../records/experiment.ts";
import { engineCommand } from "../../runtime/command.ts";
import { gpuWish, makeLibrary, makeWorkspace, vivariumHome } from "../environment.ts";
import type { Io } from "../io.ts";
import { toDriverError } from "../render/error.ts";
import { runSelfTest } from "../self-test.ts";

interface Finding {
  name: string;
  state: "ok" | "note" | "missing";
  detail: string;
  hint?: string;
}

/** The Python environment takes this much (torch's CUDA build, which also runs on the CPU). Measured: 5.4 GB. */
const ENVIRONMENT_BYTES = 6e9;

const gigabytes = (bytes: number): string => `${(bytes / 1e9).toFixed(1)} GB`;

/** @param needs_space whether the Python environment is still to be installed there. */
async function checkHome(needs_space: boolean): Promise<Finding> {
  const home = vivariumHome();
  try {
    await mkdir(home, { recursive: true });
    await access(home, constants.W_OK);
    const { bavail, bsize } = await statfs(home);
    const free = bavail * bsize;
    const detail = `${home}, ${gigabytes(free)} free`;
    if (free > ENVIRONMENT_BYTES || !needs_space) return { name: "VIVARIUM_HOME", state: "ok", detail };
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

/** Looks and installs nothing: 5 GB are no answer to a question. */
async function checkPython(): Promise<Finding> {
  const name = "Python bridge";
  try {
    const python = findBridge({ home: vivariumHome() });
    if (python !== undefined) return { name, state: "ok", detail: python };
    const { path, version } = await findPython();
    return {
      name,
      state: "note",
      detail: "not installed yet; the first run installs about 5 GB",
      hint: `It will use Python ${version}, ${path}.`,
    };
  } catch (cause) {
    const { message, hint } = toDriverError(cause);
    return { name, state: "missing", detail: message, ...(hint === undefined ? {} : { hint }) };
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
  if (!(await base.isDone())) await base.run({ signal: io.signal, progress: () => {}, warn: () => {}, note: () => {} });
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
  const wanted = gpuWish();
  if (gpus.length === 0)
    return {
      name: "GPU",
      state: "note",
      detail: `no NVIDIA GPU found; training runs on the CPU${wanted ? "" : ", and so does sampling"}`,
    };
  return {
    name: "GPU",
    state: "ok",
    detail: gpus.join("; "),
    hint: wanted
      ? "Training uses CUDA by itself; llama.cpp samples on the GPU, as VIVARIUM_GPU=on says."
      : "Training uses CUDA by itself; llama.cpp samples on the CPU unless VIVARIUM_GPU=on, which needs a GPU build of it: `npx node-llama-cpp source download --gpu cuda`.",
  };
}

async function checkModel(): Promise<Finding> {
  const { dir } = await makeLibrary().model("nano");
  const there = existsSync(join(dir, "model.safetensors"));
  return there
    ? { name: "embedded model", state: "ok", detail: dir }
    : { name: "embedded model", state: "missing", detail: `${dir} has no weights`, hint: "Install vivarium again." };
}

/** @throws {DriverError} `MACHINE_LACKS` when anything is missing; `CONFIG_INVALID` for a bad `VIVARIUM_GPU`. */
export async function run(_args: string[][], options: { selfTest?: boolean }, io: Io): Promise<unknown> {
  gpuWish();
  const python = await checkPython();
  const findings: Finding[] = [
    { name: "Node", state: "ok", detail: process.versions.node },
    {
      name: "machine",
      state: "ok",
      detail: `${availableParallelism()} cores, ${gigabytes(freemem())} of ${gigabytes(totalmem())} memory free`,
    },
    await checkHome(python.state === "note"),
    python,
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
  if (options.selfTest !== true) return { findings };
  return { findings, self_test: await runSelfTest(io) };
}
