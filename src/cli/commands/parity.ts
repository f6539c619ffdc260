import { join } from "node:path";
import { stageUnit } from "../../phases/stage/stage.ts";
import { readParity } from "../../pipeline/parity-record.ts";
import { evalUnits, linkUnits } from "../../pipeline/plan-experiment.ts";
import type { PhaseName } from "../../pipeline/unit.ts";
import { chooseJobs, makeLibrary, makeWorkspace } from "../environment.ts";
import { type EvalFlags, planFromFlags } from "../eval-wish.ts";
import type { Io } from "../io.ts";
import { runUnits } from "../work.ts";

const GATE: readonly PhaseName[] = ["stage", "convert", "parity"];

export async function run([[folder = ""] = []]: string[][], flags: EvalFlags, io: Io): Promise<unknown> {
  const workspace = await makeWorkspace(flags.dir, io);
  const wish = { ...flags, questions: [], samples: 1, scale: 1, seed: 0, name: "parity" };
  const { planned } = await planFromFlags([folder], wish, makeLibrary(), workspace);
  const jobs = chooseJobs(planned.staged, workspace, io);
  const units = [stageUnit(planned.staged, workspace), ...evalUnits(planned, workspace)];
  await runUnits(linkUnits(units.filter((unit) => GATE.includes(unit.phase))), jobs, io);
  const models = await Promise.all(
    planned.models.map(async (model) => ({
      label: model.label,
      record: await readParity(join(planned.dir, model.id, "parity.json")),
    })),
  );
  for (const { label, record } of models) {
    const strict = record?.checks.find((check) => check.check === "strict")?.metrics ?? {};
    io.say(
      `${label.padEnd(24)} ${record?.verdict}  ${Object.entries(strict)
        .map(([name, value]) => `${name} ${value.toPrecision(3)}`)
        .join("  ")}`,
    );
  }
  return {
    passed: models.every(({ record }) => record?.verdict === "pass"),
    models: Object.fromEntries(models.map(({ label, record }) => [label, record])),
  };
}
