import { join } from "node:path";
import type { EvalFlags } from "../eval-wish.ts";
import type { Io } from "../io.ts";
import { shortPath } from "../work.ts";
import { evaluate } from "./eval.ts";

export async function run([folders = []]: string[][], flags: EvalFlags, io: Io): Promise<unknown> {
  const { planned, seconds } = await evaluate(folders, flags, io, "sample");
  const responses = Object.fromEntries(
    planned.models.map((model) => [model.label, join(planned.dir, model.id, "responses.jsonl")]),
  );
  for (const [label, path] of Object.entries(responses)) io.say(`${label.padEnd(20)} ${shortPath(path)}`);
  io.say(`Next: vivarium judge ${shortPath(planned.dir)}`);
  return { eval: planned.dir, responses, seconds };
}
