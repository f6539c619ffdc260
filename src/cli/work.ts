import { relative, resolve } from "node:path";
import { type ExecuteResult, executePlan } from "../pipeline/execute.ts";
import type { WorkUnit } from "../pipeline/unit.ts";
import type { Io } from "./io.ts";
import { progressPrinter } from "./render/progress.ts";

/** Runs units and tells about it on stderr. */
export async function runUnits(units: readonly WorkUnit[], jobs: number, io: Io): Promise<ExecuteResult> {
  const onEvent = progressPrinter({ stream: process.stderr, json: io.options.json === true });
  const result = await executePlan(units, { jobs, signal: io.signal, onEvent });
  if (result.done === 0) io.note("Nothing to do: all of it is done already.");
  return result;
}

/** A path as a person would type it from here. */
export function shortPath(path: string): string {
  const short = relative(process.cwd(), path);
  return short === "" ? "." : short.startsWith("..") ? path : short;
}

/** A name of a thing that stays right in another folder: paths become absolute, ids stay. */
export const absoluteName = (name: string): string => (/[/\\]|\.ya?ml$/.test(name) ? resolve(name) : name);

/** A word as a shell takes it. */
const quoted = (word: string): string => (/^[\w./@:+-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`);

/** A path to be pasted into a command, and `--dir` where results do not lie here. */
export const pasteable = (path: string, dir?: string): string =>
  quoted(shortPath(path)) + (dir === undefined || dir === "." ? "" : ` --dir ${quoted(dir)}`);
