import { existsSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { bridgeCommand } from "../../bridge/environment.ts";
import { runJob } from "../../bridge/session.ts";
import { DriverError } from "../../errors.ts";
import { openRun, stageBaseOf } from "../../pipeline/saved.ts";
import { openCheckpoint } from "../../pipeline/served.ts";
import { chooseCheckpoints } from "../checkpoints.ts";
import { makeLibrary, makeWorkspace } from "../environment.ts";
import type { Io } from "../io.ts";
import { shortPath } from "../work.ts";

interface MergeFlags {
  checkpoint: string;
  out: string;
  dtype: "float32" | "bfloat16" | "float16";
}

/** Writes the base of a run with one checkpoint merged into it as a model folder. */
export async function run([[folder = ""] = []]: string[][], flags: MergeFlags, io: Io): Promise<unknown> {
  const out_dir = resolve(flags.out);
  if (existsSync(out_dir))
    throw new DriverError("USAGE", `--out: expected a folder that is not there yet, got ${flags.out}`);
  const workspace = await makeWorkspace(dirname(out_dir), io);
  const planned = await openRun(folder);
  if (planned.config.lora === null)
    throw new DriverError("ADAPTER_UNSUPPORTED", `${planned.id} is a full fine-tune: expected an adapter`, {
      hint: "Its checkpoints are model folders already.",
    });
  const steps = chooseCheckpoints(planned, flags.checkpoint, "--checkpoint");
  const [step] = steps;
  if (step === undefined || steps.length > 1)
    throw new DriverError("USAGE", `--checkpoint: expected one step or last, got ${JSON.stringify(flags.checkpoint)}`);
  const staged = await stageBaseOf(planned, makeLibrary(), workspace);
  const { dir } = await openCheckpoint(planned, step, workspace); // unchanged since it was trained
  io.note(`Merging ${planned.id}@${step} into ${staged.id} with PEFT`);
  const { result } = await runJob(
    {
      type: "merge",
      base_model_dir: staged.dir,
      adapter_dir: dir,
      out_dir,
      dtype: flags.dtype,
      num_threads: workspace.num_threads,
    },
    {
      ...bridgeCommand(await workspace.python()),
      signal: io.signal,
      log_dir: join(planned.dir, "logs"),
      log_name: "merge",
    },
  );
  io.say(`Model: ${shortPath(out_dir)}`);
  io.say(`Next: vivarium stage ${shortPath(out_dir)}`);
  return { model: out_dir, run: planned.id, step, files: result.files };
}
