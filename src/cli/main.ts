#!/usr/bin/env node
import { readFileSync } from "node:fs";
import { type Command, CommanderError } from "commander";
import { DriverError, ERROR_CODES } from "../errors.ts";
import { checkJsonFile, emitResult, type GlobalOptions, type Io, makeIo, takeJson } from "./io.ts";
import { buildProgram } from "./program.ts";
import { nearestFlag } from "./unknown-option.ts";

/** A command's work. Its return value is what `--json` prints. */
export type CommandModule = { run: (args: string[][], options: never, io: Io) => Promise<unknown> };

/** Loaded only when its command runs: importing all of them would cost every `--help` a second. */
const COMMANDS: Record<string, () => Promise<CommandModule>> = {
  demo: () => import("./commands/demo.ts"),
  doctor: () => import("./commands/doctor.ts"),
  plan: () => import("./commands/plan.ts"),
  run: () => import("./commands/run.ts"),
  stage: () => import("./commands/stage.ts"),
  "data show": async () => ({ run: (await import("./commands/data.ts")).show }),
  "data check": async () => ({ run: (await import("./commands/data.ts")).check }),
  "recipe list": async () => ({ run: (await import("./commands/recipe.ts")).list }),
  "recipe show": async () => ({ run: (await import("./commands/recipe.ts")).show }),
  train: () => import("./commands/train.ts"),
  convert: () => import("./commands/convert.ts"),
  merge: () => import("./commands/merge.ts"),
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
  const line = "Stopping; what is finished is kept. Once more to leave at once.";
  makeIo(options, cancel.signal).note(options.json === true ? line : `\n${line}`);
  cancel.abort();
}

async function handle(name: string, args: string[][], given: Record<string, unknown> & GlobalOptions): Promise<void> {
  options = { ...given, ...options };
  const load = COMMANDS[name];
  if (load === undefined) throw new DriverError("INTERNAL", `Command ${name} has no module`);
  checkJsonFile(options.json);
  const io = makeIo(options, cancel.signal);
  const { run } = await load();
  emitResult(await run(args, given as never, io), options.json);
}

/** An unknown flag with the one that was meant. */
function unknownFlag(cause: unknown, program: Command, argv: readonly string[]): unknown {
  const flag = /unknown option '([^']+)'/.exec((cause as Error).message)?.[1];
  if (!(cause instanceof CommanderError) || cause.code !== "commander.unknownOption" || flag === undefined)
    return cause;
  const near = nearestFlag(program, argv, flag);
  const hint = near === undefined ? "See `vivarium --help`." : `Did you mean ${near}?`;
  return new DriverError("USAGE", `unknown option '${flag}'`, { hint });
}

/** What commander says of a bad command line, as a usage error; `--help` and `--version` end with 0. */
function usageError(error: CommanderError): DriverError | undefined {
  if (error.exitCode === 0) return undefined;
  if (error.code === "commander.help") return noCommand();
  const [message = "Bad command line", ...rest] = error.message.replace(/^error: /, "").split("\n");
  const hint = rest.join(" ").replace(/^\((.*)\)$/, "$1") || "See `vivarium --help`.";
  return new DriverError("USAGE", message, { hint });
}

const noCommand = () => new DriverError("USAGE", "Expected a command", { hint: "See `vivarium --help`." });

async function fail(cause: unknown): Promise<number> {
  const { errorJson, renderError, toDriverError } = await import("./render/error.ts");
  const error = toDriverError(cause instanceof CommanderError ? (usageError(cause) ?? cause) : cause);
  process.stderr.write(`${renderError(error, options.debug === true)}\n`);
  try {
    if (error.facts.json_file === undefined) emitResult(errorJson(error), options.json);
  } catch (unwritten) {
    process.stderr.write(`${renderError(toDriverError(unwritten), false)}\n`);
  }
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
  const { argv, json } = takeJson(process.argv.slice(2));
  // Set before parsing: a bad command line is reported as JSON too.
  options = { ...(json === undefined ? {} : { json }), ...(argv.includes("--debug") ? { debug: true } : {}) };
  try {
    if (argv.length > 0) await program.parseAsync(argv, { from: "user" });
    else if (json !== undefined) throw noCommand();
    else program.outputHelp();
    return 0;
  } catch (cause) {
    if (cause instanceof CommanderError && usageError(cause) === undefined) return 0;
    return fail(unknownFlag(cause, program, argv));
  }
}

/** A reader that went away, as `head` does, is no reason to stop the work; a full disk behind stdout is told. */
function onOutputError(cause: NodeJS.ErrnoException): void {
  if (cause.code === "EPIPE") return;
  const error = new DriverError("NOT_WRITABLE", `stdout cannot be written: ${cause.message}`, {
    facts: { json_file: "stdout" },
    cause,
  });
  void fail(error).then((code) => process.exit(code));
}

process.stdout.on("error", onOutputError);
process.stderr.on("error", () => {}); // nobody is left to tell
process.on("SIGINT", onSignal);
process.on("SIGTERM", onSignal);
process.exitCode = await main();
