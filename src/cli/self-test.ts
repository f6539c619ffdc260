import pc from "picocolors";
import { DriverError } from "../errors.ts";
import { stageModel } from "../phases/stage/stage.ts";
import { type SelfTestRow, selfTest } from "../phases/train/self-test.ts";
import { makeLibrary, makeWorkspace } from "./environment.ts";
import type { Io } from "./io.ts";

const DATA = "kitchen-careful";
const NAME_WIDTH = 38;

function renderRow(row: SelfTestRow): string {
  const mark = row.passed ? pc.green("ok  ") : pc.red("FAIL");
  const mfu = row.mfu === null ? "      -" : `${(100 * row.mfu).toFixed(1)} %`.padStart(7);
  return [
    `${mark}  ${row.name.padEnd(NAME_WIDTH)}`,
    row.tokens_per_second.toFixed(0).padStart(9),
    mfu,
    `${(row.peak_memory_bytes / 1e9).toFixed(2)} GB`.padStart(9),
    row.max_loss_diff.toExponential(1).padStart(9),
    row.rel_adapter_diff.toExponential(1).padStart(9),
  ].join("  ");
}

/**
 * Trains the same few steps in every way that this machine has and prints a table.
 *
 * @throws {DriverError} `TRAIN_FAILED` when a way gives other losses or another adapter than the plain one on the CPU.
 */
export async function runSelfTest(io: Io): Promise<SelfTestRow[]> {
  const workspace = await makeWorkspace(".", io);
  const library = makeLibrary();
  const { id, dir } = await library.model("nano");
  const staged = await stageModel(dir, workspace, id);
  const data = await library.dataset(DATA);
  const titles = ["token/s".padStart(9), "MFU".padStart(7), "peak".padStart(9), "d loss".padStart(9), "d adapter"];
  io.say(`\nTraining the same steps every way:\n      ${"".padEnd(NAME_WIDTH)}  ${titles.join("  ")}`);
  const rows = await selfTest(staged, data, workspace, { signal: io.signal, onRow: (row) => io.say(renderRow(row)) });
  if (!workspace.cuda) io.say("skip  CUDA: no NVIDIA GPU found");
  const failed = rows.filter(({ passed }) => !passed).map(({ name }) => name);
  if (failed.length > 0)
    throw new DriverError("TRAIN_FAILED", `The self-test failed: ${failed.join(", ")} trains something else`, {
      hint: "Please report it with the table above: results of this machine cannot be trusted.",
      facts: { rows },
    });
  return rows;
}
