import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { DriverError } from "../../../src/errors.ts";
import { executePlan, type PipelineEvent } from "../../../src/pipeline/execute.ts";
import type { Cohort, CohortMember, WorkUnit } from "../../../src/pipeline/unit.ts";

const done = new Set<string>();

function unit(key: string, needs: string[], run: () => Promise<void> = async () => {}, cohort?: Cohort): WorkUnit {
  return {
    ...{ key, needs, phase: "train", output: key, summary: key },
    isDone: async () => done.has(key),
    run,
    ...(cohort === undefined ? {} : { cohort }),
  };
}

async function execute(units: WorkUnit[], jobs = 2, signal = new AbortController().signal) {
  const events: string[] = [];
  const onEvent = (event: PipelineEvent) => void events.push(`${event.type} ${event.unit.key}`);
  const result = await executePlan(units, { jobs, signal, onEvent }).catch((error: unknown) => error);
  return { events, result };
}

/** A cohort that does its members in turn, and waits `ms` between two of them. */
function inTurn(ms: number, seen: string[] = []): Cohort {
  return {
    run: async (members: readonly CohortMember[]) => {
      for (const member of members) {
        member.started();
        await sleep(ms);
        seen.push(member.unit.key);
        member.finished();
      }
    },
  };
}

describe("a cohort", () => {
  test("runs its members in order in one slot, and what needs the first does not wait for the second", async () => {
    const seen: string[] = [];
    const cohort = inTurn(20, seen);
    const { events, result } = await execute([
      unit("stage", []),
      unit("a", ["stage"], undefined, cohort),
      unit("b", ["stage"], undefined, cohort),
      unit("after a", ["a"]),
    ]);
    expect(seen).toEqual(["a", "b"]);
    expect(events.indexOf("finished after a")).toBeLessThan(events.indexOf("finished b"));
    expect(result).toMatchObject({ done: 4, skipped: 0 });
  });

  test("skips the members that are done, and does not start when all are", async () => {
    done.add("b").add("c");
    const seen: string[] = [];
    const cohort = inTurn(0, seen);
    const two = [unit("a", [], undefined, cohort), unit("b", [], undefined, cohort)];
    expect((await execute(two)).events).toEqual(["skipped b", "started a", "finished a"]);
    expect((await execute([unit("c", [], undefined, inTurn(0, seen))])).events).toEqual(["skipped c"]);
    expect(seen).toEqual(["a"]);
    done.clear();
  });

  test("a failing member stops the rest with its error, and finished members stay finished", async () => {
    const cohort: Cohort = {
      run: async ([first]) => {
        first?.started();
        first?.finished();
        throw new DriverError("TRAIN_FAILED", "the second one diverged");
      },
    };
    const { events, result } = await execute([
      unit("a", [], undefined, cohort),
      unit("b", [], undefined, cohort),
      unit("after b", ["b"]),
    ]);
    expect(result).toMatchObject({ code: "TRAIN_FAILED", message: "the second one diverged" });
    expect(events).toEqual(["started a", "finished a"]);
  });

  test("is cancelled before it begins", async () => {
    const abort = new AbortController();
    abort.abort();
    const { events, result } = await execute([unit("a", [], undefined, inTurn(0))], 1, abort.signal);
    expect(result).toMatchObject({ code: "CANCELLED" });
    expect(events).toEqual([]);
  });

  test("two cohorts share the slots with other units", async () => {
    const seen: string[] = [];
    const [x, y] = [inTurn(5, seen), inTurn(5, seen)];
    const { result } = await execute(
      [
        unit("x1", [], undefined, x),
        unit("y1", [], undefined, y),
        unit("x2", [], undefined, x),
        unit("z", ["x2", "y1"]),
      ],
      1,
    );
    expect(seen).toEqual(["x1", "x2", "y1"]);
    expect(result).toMatchObject({ done: 4 });
  });
});
