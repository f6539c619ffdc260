import { accessSync, constants, statSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { InvalidArgumentError } from "commander";
import { DriverError } from "../errors.ts";

/** Options that every command takes, and those of commands whose units may run side by side. */
export interface GlobalOptions {
  /** `true`: the result goes to stdout as JSON; a string: into that file. */
  json?: true | string;
  debug?: boolean;
  jobs?: number;
  threads?: number;
}

/** What a command may do to the outside, beside its work. */
export interface Io {
  readonly options: GlobalOptions;
  readonly signal: AbortSignal;
  /** A line for a person; silent when stdout is for JSON. */
  say(line: string): void;
  /** A line of progress, always on stderr; a JSON line where the result is JSON on stdout. */
  note(line: string): void;
}

export function makeIo(options: GlobalOptions, signal: AbortSignal): Io {
  return {
    options,
    signal,
    say: (line) => {
      if (options.json !== true) process.stdout.write(`${line}\n`);
    },
    note: (line) => {
      process.stderr.write(`${options.json === true ? JSON.stringify({ type: "note", message: line }) : line}\n`);
    },
  };
}

/**
 * Takes `--json [FILE]` out of a command line. Only a name that ends in `.json` is taken as its value, so that
 * `--json runs/a` keeps its run; `--json=FILE` takes any name.
 */
export function takeJson(argv: readonly string[]): { argv: string[]; json: GlobalOptions["json"] } {
  const end = argv.indexOf("--");
  const scanned = end < 0 ? argv : argv.slice(0, end);
  const kept: string[] = [];
  let json: GlobalOptions["json"];
  for (let i = 0; i < scanned.length; i++) {
    const word = scanned[i] as string;
    const next = scanned[i + 1];
    if (word.startsWith("--json=")) json = word.slice("--json=".length);
    else if (word !== "--json") kept.push(word);
    else if (next?.endsWith(".json") && !next.startsWith("-")) {
      json = next;
      i += 1;
    } else json = true;
  }
  return { argv: [...kept, ...argv.slice(scanned.length)], json };
}

/**
 * Refuses a result file that cannot be written, before hours of work end in nothing.
 *
 * @throws {DriverError} `USAGE`, with the file in `facts.json_file`.
 */
export function checkJsonFile(json: GlobalOptions["json"]): void {
  if (typeof json !== "string") return;
  const refuse = (found: string, cause?: unknown) =>
    new DriverError("USAGE", `--json: expected a file that can be written, got ${found}`, {
      hint: "Give --json=FILE in a folder that exists, or --json alone for stdout.",
      facts: { json_file: json },
      cause,
    });
  if (json === "") throw refuse("an empty name");
  try {
    const there = statSync(json, { throwIfNoEntry: false });
    if (there?.isDirectory()) throw refuse(`the folder ${json}`);
    accessSync(there === undefined ? dirname(json) : json, constants.W_OK);
  } catch (cause) {
    if (cause instanceof DriverError) throw cause;
    throw refuse(`${json} (${(cause as Error).message})`, cause);
  }
}

/**
 * Hands a command's result to whoever asked for JSON.
 *
 * @throws {DriverError} `DISK_FULL` or `NOT_WRITABLE`, with the file in `facts.json_file`.
 */
export function emitResult(result: unknown, json: GlobalOptions["json"]): void {
  if (json === undefined || result === undefined) return;
  const text = `${JSON.stringify(result, null, 2)}\n`;
  if (json === true) process.stdout.write(text);
  else
    try {
      writeFileSync(json, text);
    } catch (cause) {
      const code = (cause as NodeJS.ErrnoException).code === "ENOSPC" ? "DISK_FULL" : "NOT_WRITABLE";
      throw new DriverError(code, `--json: cannot write ${json}: ${(cause as Error).message}`, {
        hint: "Run the same command with another file; finished work is kept.",
        facts: { json_file: json },
        cause,
      });
    }
}

/** Parses a whole number from the command line; commander adds the name of the option to the error. */
export function wholeNumber(minimum: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (/^\d+$/.test(text) && Number.isSafeInteger(value) && value >= minimum) return value;
    throw new InvalidArgumentError(`Expected a whole number of at least ${minimum}, got ${JSON.stringify(text)}`);
  };
}

/** Parses a finite number from the command line. */
export function realNumber(text: string): number {
  const value = Number(text);
  if (text.trim() !== "" && Number.isFinite(value)) return value;
  throw new InvalidArgumentError(`Expected a number, got ${JSON.stringify(text)}`);
}

/** Parses a finite number of at least 0 from the command line. */
export function notNegative(text: string): number {
  const value = realNumber(text);
  if (value >= 0) return value;
  throw new InvalidArgumentError(`Expected a number of at least 0, got ${JSON.stringify(text)}`);
}

/** Splits `a,b c` into its words, each once. */
export const words = (text: string): string[] => [...new Set(text.split(/[\s,]+/).filter((word) => word !== ""))];

/** Parses a list of at least one name. */
export function names(text: string): string[] {
  const list = words(text);
  if (list.length > 0) return list;
  throw new InvalidArgumentError(`Expected at least one name, got ${JSON.stringify(text)}`);
}
