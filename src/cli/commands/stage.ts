import { convertBaseUnit } from "../../phases/convert/convert.ts";
import { stageModel, stageUnit } from "../../phases/stage/stage.ts";
import { linkUnits } from "../../pipeline/plan-experiment.ts";
import type { ServedDtype } from "../../records/experiment.ts";
import { makeLibrary, makeWorkspace } from "../environment.ts";
import type { Io } from "../io.ts";
import { runUnits } from "../work.ts";

export async function run([[name = ""] = []]: string[][], options: { dtype: ServedDtype }, io: Io): Promise<unknown> {
  const workspace = await makeWorkspace(".", io);
  const { id, dir } = await makeLibrary().model(name);
  const staged = await stageModel(dir, workspace, id);
  const units = linkUnits([stageUnit(staged, workspace), convertBaseUnit(staged, options.dtype, null, workspace)]);
  await runUnits(units, 1, io);
  const gguf = units[1]?.output ?? "";
  io.say(`${staged.id}: ${staged.model.architecture}, ${staged.model.n_layers} layers, sha256 ${staged.sha256}`);
  io.say(`GGUF: ${gguf}`);
  const { architecture, n_layers, vocab_size } = staged.model;
  return {
    id: staged.id,
    dir: staged.dir,
    sha256: staged.sha256,
    architecture,
    n_layers,
    vocab_size,
    files: staged.files,
    gguf,
  };
}
