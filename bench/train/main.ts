/**
 * `npm run bench:train -- [--json] [--size 0.5b|small|tiny] [--steps N] [--only rank1,rank32,bf16] [--trl-head targets|all]`:
 * training speed against TRL's SFTTrainer, and that both train the same. Progress goes to stderr. Ends with 1 if they do not.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { DriverError, ERROR_CODES } from "../../src/errors.ts";
import { ensureEnvironment } from "./environment.ts";
import { type Measured, measure } from "./measure.ts";
import { makeScenario, SCENARIO_NAMES, type ScenarioName } from "./scenarios.ts";
import { SIZES, type Size, type SizeName } from "./sizes.ts";
import { type Summary, summarise } from "./summary.ts";
import { renderTable } from "./table.ts";

const say = (line: string) => void process.stderr.write(`${new Date().toTimeString().slice(0, 8)} ${line}\n`);

interface Options {
  is_json: boolean;
  size: Size;
  steps_per_epoch: number;
  only: readonly ScenarioName[];
  scores_all: boolean;
}

function readOptions(): Options {
  const values = parse();
  const size = SIZES[choose("--size", values.size, Object.keys(SIZES) as SizeName[])];
  const steps_per_epoch = values.steps === undefined ? size.steps_per_epoch : Number(values.steps);
  if (!Number.isInteger(steps_per_epoch) || steps_per_epoch < 1)
    throw new DriverError("USAGE", `--steps: expected optimizer steps of an epoch, 1 or more, got ${values.steps}`);
  return {
    is_json: values.json,
    size,
    steps_per_epoch,
    only: values.only.split(",").map((name) => choose("--only", name, SCENARIO_NAMES)),
    scores_all: choose("--trl-head", values["trl-head"], ["targets", "all"]) === "all",
  };
}

function parse() {
  const options = {
    json: { type: "boolean", default: false },
    size: { type: "string", default: "0.5b" },
    steps: { type: "string" },
    only: { type: "string", default: SCENARIO_NAMES.join(",") },
    "trl-head": { type: "string", default: "targets" },
  } as const;
  try {
    return parseArgs({ options }).values;
  } catch (cause) {
    throw new DriverError("USAGE", (cause as Error).message, { cause });
  }
}

function choose<const T extends string>(option: string, value: string, from: readonly T[]): T {
  const found = from.find((one) => one === value);
  if (found === undefined)
    throw new DriverError("USAGE", `${option}: expected one of ${from.join(", ")}, got ${value}`);
  return found;
}

async function run({ size, steps_per_epoch, only, scores_all }: Options): Promise<Summary> {
  const home = process.env.VIVARIUM_HOME || join(homedir(), ".cache", "vivarium");
  const python = await ensureEnvironment(home, say);
  const scratch = mkdtempSync(join(tmpdir(), "vivarium-bench-"));
  try {
    const measured: Measured[] = [];
    for (const name of only) {
      const scenario = makeScenario(name, { size, steps_per_epoch, scores_all, cache_dir: join(scratch, "cache") });
      measured.push(await measure(scenario, { python, scratch, say }));
    }
    return summarise(measured, size, steps_per_epoch, scores_all);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

/** What people can mend is said in a line; anything else is a bug and keeps its stack. */
async function main(): Promise<number> {
  try {
    const options = readOptions();
    const summary = await run(options);
    process.stdout.write(`${options.is_json ? JSON.stringify(summary, null, 2) : renderTable(summary)}\n`);
    return summary.equality.passed === false ? 1 : 0;
  } catch (error) {
    if (!(error instanceof DriverError)) throw error;
    say(`${error.code}: ${error.message}${error.hint === undefined ? "" : `\nHint: ${error.hint}`}`);
    return ERROR_CODES[error.code].exit;
  }
}

process.exitCode = await main();
