import { writeFileSync } from "node:fs";
import { DriverError } from "../errors.ts";

/** Options that every command takes. */
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
  /** A line of progress, always on stderr. */
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
      process.stderr.write(`${line}\n`);
    },
  };
}

/** Hands a command's result to whoever asked for JSON. */
export function emitResult(result: unknown, json: GlobalOptions["json"]): void {
  if (json === undefined || result === undefined) return;
  const text = `${JSON.stringify(result, null, 2)}\n`;
  if (json === true) process.stdout.write(text);
  else writeFileSync(json, text);
}

/** Parses a whole number from the command line. */
export function wholeNumber(minimum: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (/^\d+$/.test(text) && Number.isSafeInteger(value) && value >= minimum) return value;
    throw new DriverError("USAGE", `Expected a whole number of at least ${minimum}, got ${JSON.stringify(text)}`);
  };
}

/** Parses a finite number from the command line. */
export function realNumber(text: string): number {
  const value = Number(text);
  if (text.trim() !== "" && Number.isFinite(value)) return value;
  throw new DriverError("USAGE", `Expected a number, got ${JSON.stringify(text)}`);
}

/** Splits `a,b c` into its words. */
export const words = (text: string): string[] => text.split(/[\s,]+/).filter((word) => word !== "");
