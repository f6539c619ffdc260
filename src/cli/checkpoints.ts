import { DriverError } from "../errors.ts";
import type { PlannedRun } from "../pipeline/handles.ts";
import { words } from "./io.ts";

/** Which checkpoints of a run are meant: `all`, `last`, or steps. */
export function chooseCheckpoints(run: PlannedRun, which: string): number[] {
  const known = run.config.checkpoints;
  if (which === "all") return known;
  if (which === "last") return [run.config.steps];
  const steps = words(which).map(Number);
  const wrong = steps.filter((step) => !known.includes(step));
  if (steps.length > 0 && wrong.length === 0) return steps;
  throw new DriverError(
    "USAGE",
    `--checkpoints: expected all, last, or steps of ${run.id} (${known.join(", ")}), got ${which}`,
  );
}
