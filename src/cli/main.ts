#!/usr/bin/env node
import { readFileSync } from "node:fs";
import { type Command, CommanderError } from "commander";
import { DriverError, ERROR_CODES } from "../errors.ts";
import { emitResult, type GlobalOptions, type Io, makeIo } from "./io.ts";
import { buildProgram } from "./program.ts";

/** A command's work. Its return value is what `--json` prints. */
export type CommandModule = { run: (args: string[][], options: never, io: Io) => Promise<unknown> };

/** Loaded only when its command runs: importing all of them would cost every `--help` a second. */
const COMMANDS: Record<string, () => Promise<CommandModule>> = {
  demo: () => import("./commands/demo.ts"),
  doctor: () => import("./commands/doctor.ts"),
  plan: () => import("./commands/plan.ts"),
  run: () => import("./commands/run.ts"),
  stage: () => import("./commands/stage.ts"),
  train: () => import("./commands/train.ts"),
  convert: () => import("./commands/convert.ts"),
  parity: () => import("./commands/parity.ts"),
  sample: () => import("./commands/sample.ts"),
  judge: () => import("./commands/judge.ts"),
  eval: () => import("./commands/eval.ts"),
  report: () => import("./commands/report.ts"),
};

const cancel = new AbortController();
let options: GlobalOptions = {};

/** First signal: stop in order and keep what is finished. Second: leave at once; children see the end of their stdin. */
function onSignal(): void {
  if (cancel.signal.aborted) process.exit(ERROR_CODES.CANCELLED.exit);
  process.stderr.write("\nStopping; what is finished is kept. Once more to leave at once.\n");
  cancel.abort();
}

async function handle(name: string, args: string[][], given: Record<string, unknown> & GlobalOptions): Promise<void> {
  options = given;
  const load = COMMANDS[name];
  if (load === undefined) throw new DriverError("INTERNAL", `Command ${name} has no module`);
  const io = makeIo(options, cancel.signal);
  const { run } = await load();
  emitResult(await run(args, given as never, io), options.json);
}

/** What commander says of a bad command line, as a usage error; `--help` and `--version` end with 0. */
function usageError(error: CommanderError): DriverError | undefined {
  if (error.exitCode === 0) return undefined;
  if (error.code === "commander.help") return undefined;
  const [message = "Bad command line", ...rest] = error.message.replace(/^error: /, "").split("\n");
  const hint = rest.join(" ").replace(/^\((.*)\)$/, "$1") || "See `vivarium --help`.";
  return new DriverError("USAGE", message, { hint });
}

async function fail(cause: unknown): Promise<number> {
  const { errorJson, renderError, toDriverError } = await import("./render/error.ts");
  const error = toDriverError(cause instanceof CommanderError ? (usageError(cause) ?? cause) : cause);
  process.stderr.write(`${renderError(error, options.debug === true)}\n`);
  emitResult(errorJson(error), options.json);
  return ERROR_CODES[error.code].exit;
}

function strict(command: Command): Command {
  command.exitOverride().configureOutput({ writeErr: () => {} });
  command.commands.forEach(strict);
  return command;
}

async function main(): Promise<number> {
  const { version } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as {
    version: string;
  };
  const program = strict(buildProgram(version, handle));
  if (process.argv.length <= 2) {
    program.outputHelp();
    return 0;
  }
  try {
    await program.parseAsync(process.argv);
    return 0;
  } catch (cause) {
    if (cause instanceof CommanderError && usageError(cause) === undefined) return 0;
    return fail(cause);
  }
}

process.on("SIGINT", onSignal);
process.on("SIGTERM", onSignal);
process.exitCode = await main();
