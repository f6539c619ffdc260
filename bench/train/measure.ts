import { join } from "node:path";
import { z } from "zod";
import { runCommand } from "../../src/bridge/command.ts";
import { type Scenario, TRL_DEFAULT } from "./scenarios.ts";
import { maxDifference } from "./statistics.ts";
import { type DoneReport, type StepReport, Worker, workerEnv } from "./worker.ts";

const Distance = z.strictObject({ max_rel_weight_diff: z.number(), max_rel_update_diff: z.number() });

/** How far vivarium's runs are from TRL's default, the largest of all. */
export interface Equality extends z.output<typeof Distance> {
  /** In nats per target token, over all steps. */
  max_loss_diff: number;
}

export interface Measured {
  scenario: Scenario;
  steps: Record<string, StepReport[]>;
  done: Record<string, DoneReport>;
  equality: Equality;
}

export interface Setting {
  python: string;
  /** Where adapters are written. */
  scratch: string;
  say: (line: string) => void;
}

/** Trains in all ways of a scenario, which take turns: one step each, in reversed order every other round. */
export async function measure(scenario: Scenario, setting: Setting): Promise<Measured> {
  const workers: Worker[] = [];
  const done: Record<string, DoneReport> = {};
  try {
    for (const [name, job] of Object.entries(scenario.jobs)) {
      setting.say(`${scenario.name}: starting ${name}`);
      workers.push(await Worker.start(name, setting.python, job));
    }
    const rounds = Math.min(...Object.values(scenario.jobs).map((job) => job.steps));
    for (let round = 0; round < rounds; round++) await takeTurns(workers, round, rounds, scenario, setting);
    for (const worker of workers) done[worker.name] = await worker.finish(adapterFile(worker.name, scenario, setting));
  } finally {
    await Promise.all(workers.map((worker) => worker.close()));
  }
  const steps = Object.fromEntries(workers.map((worker) => [worker.name, worker.steps]));
  return { scenario, steps, done, equality: await compare(scenario, steps, setting) };
}

async function takeTurns(
  workers: readonly Worker[],
  round: number,
  rounds: number,
  scenario: Scenario,
  { say }: Setting,
): Promise<void> {
  for (const worker of round % 2 === 0 ? workers : [...workers].reverse()) {
    const { cpu_seconds, loss } = await worker.step();
    const what = `${scenario.name}: round ${round + 1} of ${rounds}, ${worker.name}`;
    say(`${what}: ${cpu_seconds.toFixed(2)} CPU seconds, loss ${loss.toFixed(6)}`);
  }
}

async function compare(
  { name, jobs }: Scenario,
  steps: Record<string, StepReport[]>,
  setting: Setting,
): Promise<Equality> {
  const losses = (worker: string) => (steps[worker] ?? []).map((step) => step.loss);
  const ours = Object.entries(jobs).flatMap(([worker, job]) => (job.side === "vivarium" ? [worker] : []));
  const files = [TRL_DEFAULT, ...ours].map((worker) => adapterFile(worker, { name }, setting));
  const { code, stdout, tail } = await runCommand(setting.python, ["-m", "compare", ...files], {
    env: workerEnv(setting.python),
  });
  if (code !== 0) throw new Error(`cannot compare the adapters of ${name}: ${tail.join("\n")}`);
  const max_loss_diff = Math.max(...ours.map((worker) => maxDifference(losses(TRL_DEFAULT), losses(worker))));
  return { max_loss_diff, ...Distance.parse(JSON.parse(stdout)) };
}

function adapterFile(worker: string, { name }: Pick<Scenario, "name">, { scratch }: Setting): string {
  return join(scratch, `${name}-${worker}.safetensors`);
}
