import { DriverError } from "../errors.ts";
import type { PlannedRun } from "../pipeline/handles.ts";
import { words } from "./io.ts";

/** Which checkpoints of a run are meant: `all`, `last`, or steps, each once and in the order given. */
export function chooseCheckpoints(
  run: Pick<PlannedRun, "id" | "config">,
  text: string,
  flag = "--checkpoints",
): number[] {
  const which = text.trim();
  const known = run.config.checkpoints;
  if (which === "all") return known;
  if (which === "last") return [run.config.steps];
  const asked = words(which);
  const steps = [...new Set(asked.map((word) => (/^\d+$/.test(word) ? Number(word) : Number.NaN)))];
  if (steps.length > 0 && steps.every((step) => known.includes(step))) return steps;
  throw new DriverError(
    "USAGE",
    `${flag}: expected all, last, or steps of ${run.id} (${known.join(", ")}), got ${JSON.stringify(text)}`,
  );
}
