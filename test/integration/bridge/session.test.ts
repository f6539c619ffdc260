import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { type JobOptions, runJob } from "../../../src/bridge/session.ts";
import { DriverError } from "../../../src/errors.ts";
import {
  type ChildEvent,
  SCHEMA_SHA256,
  type ScoreJob,
  type TrainJob,
  type TrainRun,
} from "../../../src/protocol/wire.ts";
import { resolveRecipe } from "../../../src/records/recipe.ts";

const FAKE = fileURLToPath(new URL("../../fixtures/bridges/fake.py", import.meta.url));
const DRIVER = fileURLToPath(new URL("../../fixtures/bridges/driver.ts", import.meta.url));

const job: TrainJob = {
  type: "train",
  base_model_dir: "/model",
  base_sha256: "0".repeat(64),
  num_threads: 1,
  prefix_cache: { enabled: false, max_bytes: 0, dir: "/cache" },
  runs: [
    {
      run_dir: "/run",
      dataset_file: "/data.jsonl",
      eval_dataset_file: null,
      kl_dataset_file: null,
      chat_template_kwargs: { enable_thinking: false },
      ...resolved(),
    },
  ],
};

function resolved(): Pick<TrainRun, "lora" | "rendering" | "training"> {
  const { lora, rendering, training } = resolveRecipe([], { n_layers: 4, rows: 100, cuda: false });
  return { lora, rendering, training };
}

const score_job: ScoreJob = {
  type: "score",
  base_model_dir: "/model",
  n_layers: null,
  adapters: [],
  prompts_file: "/prompts.json",
  conversations_file: null,
  out_dir: "/out",
  num_threads: 1,
};

let logs: string;
beforeEach(() => {
  logs = mkdtempSync(join(tmpdir(), "vivarium-test-"));
});
afterEach(() => rmSync(logs, { recursive: true, force: true }));

function fake(mode: string, more: Partial<JobOptions> = {}, ...rest: string[]): JobOptions {
  return { command: "python3", args: [FAKE, mode, SCHEMA_SHA256, ...rest], log_dir: logs, ...more };
}

async function failureOf(promise: Promise<unknown>): Promise<DriverError> {
  const error = await promise.then(
    () => new Error("expected a failure"),
    (cause: unknown) => cause,
  );
  if (error instanceof DriverError) return error;
  throw error;
}

async function waitUntilGone(pid: number): Promise<void> {
  for (;;) {
    try {
      process.kill(pid, 0);
      if (readFileSync(`/proc/${pid}/stat`, "utf8").includes(") Z ")) return; // dead, not yet reaped by init
    } catch {
      return;
    }
    await sleep(20);
  }
}

/** Collects log messages; a promise resolves with the first one. */
function firstLog(): { onEvent: (event: ChildEvent) => void; message: Promise<string> } {
  let resolve: (message: string) => void = () => {};
  const message = new Promise<string>((done) => {
    resolve = done;
  });
  return { onEvent: (event) => event.type === "log" && resolve(event.message), message };
}

describe("a job that ends well", () => {
  test("gives the result and the greeting, and passes every event on in order", async () => {
    const seen: string[] = [];
    const { result, hello } = await runJob(job, fake("ok", { onEvent: (event) => void seen.push(event.type) }));
    expect(result).toMatchObject({ type: "train_result", runs: 2 });
    expect(hello).toMatchObject({ runtime: "CPython", device: "cpu" });
    expect(seen).toEqual(["hello", "log", "train_result"]);
  });

  test("waits for an async handler before it reads the next event", async () => {
    const steps: string[] = [];
    const onEvent = async (event: ChildEvent) => {
      steps.push(`${event.type} starts`);
      await sleep(event.type === "log" ? 50 : 1);
      steps.push(`${event.type} ends`);
    };
    await runJob(job, fake("ok", { onEvent }));
    expect(steps.slice(2)).toEqual(["log starts", "log ends", "train_result starts", "train_result ends"]);
  });

  test("keeps what the child prints out of the events and in the log files", async () => {
    await runJob(job, fake("noisy", { log_name: "training" }));
    expect(statSync(join(logs, "training.stdout.log")).size).toBe(2000 * 1001);
    expect(statSync(join(logs, "training.stderr.log")).size).toBe(2000 * 1001);
  });

  test("appends to the log files of an earlier attempt", async () => {
    await runJob(job, fake("noisy"));
    await runJob(job, fake("noisy"));
    expect(statSync(join(logs, "train.stdout.log")).size).toBe(2 * 2000 * 1001);
  });

  test("needs no folder for logs", async () => {
    const { log_dir: _, ...options } = fake("noisy");
    await expect(runJob(job, options)).resolves.toMatchObject({ result: { runs: 2 } });
  });
});

describe("a child that breaks the protocol", () => {
  test.each([
    ["mismatch", `[BRIDGE_MISMATCH: The child process was generated from another wire schema]`],
    ["foreign", `[BRIDGE_MISMATCH: The child process was generated from another wire schema]`],
    ["no_hello", `[BRIDGE_PROTOCOL: Expected a hello first, got log]`],
    ["hello_twice", `[BRIDGE_PROTOCOL: Expected one hello first, got hello]`],
    ["garbage", `[BRIDGE_PROTOCOL: The event stream holds a line that is not JSON]`],
    ["nan", `[BRIDGE_PROTOCOL: The event stream holds a line that is not JSON]`],
    ["not_utf8", `[BRIDGE_PROTOCOL: The event stream holds a line that is not UTF-8]`],
    ["oversize", `[BRIDGE_PROTOCOL: An event line is too long: expected 1048576 bytes at most]`],
    ["wrong_result", `[BRIDGE_PROTOCOL: A train job ends with train_result, got score_result]`],
    ["after_terminal", `[BRIDGE_PROTOCOL: Expected nothing after train_result, got log]`],
    ["result_exit_1", `[BRIDGE_PROTOCOL: Expected exit 0 after train_result, got exit 1]`],
    ["failure_exit_0", `[BRIDGE_PROTOCOL: Expected exit 1 after failure, got exit 0]`],
  ])("%s", async (mode, expected) => {
    const error = await failureOf(runJob(job, fake(mode)));
    expect(`[${error.code}: ${error.message}]`).toBe(expected);
  });

  test("a malformed event is reported with its path", async () => {
    const error = await failureOf(runJob(job, fake("malformed")));
    expect(error.message).toMatchInlineSnapshot(`
      "Malformed event:
      ✖ Invalid option: expected one of "info"|"warning"
        → at level
      ✖ Invalid input: expected string, received number
        → at message"
    `);
  });

  test("a mismatch says what to do", async () => {
    const error = await failureOf(runJob(job, fake("mismatch")));
    expect(error.hint).toMatchInlineSnapshot(
      `"Run \`npm run gen:protocol\`, then build again: driver and child must come from one checkout."`,
    );
  });

  test("a result and then no exit: it is killed when the grace is over", async () => {
    const error = await failureOf(runJob(job, fake("lingers", { grace_ms: 100 })));
    expect(error.message).toMatchInlineSnapshot(`"Expected exit 0 after train_result, got SIGKILL"`);
  });
});

describe("a child that ends without a result", () => {
  test("crash: the tail of its stderr and the log path are kept", async () => {
    const error = await failureOf(runJob(job, fake("crash")));
    expect(error.code).toBe("BRIDGE_CRASHED");
    expect(error.message).toMatchInlineSnapshot(`"The child process ended (exit 134) without a result"`);
    expect(error.hint).toBe(`Its last words are in ${join(logs, "train.stderr.log")}.`);
    expect(error.facts.stderr_tail).toEqual(["RuntimeError: CUDA error: device-side assert triggered"]);
  });

  test("killed by the kernel: names the signal and the likely cause", async () => {
    const { log_dir: _, ...options } = fake("killed");
    const error = await failureOf(runJob(job, options));
    expect(error.message).toMatchInlineSnapshot(`"The child process ended (SIGKILL) without a result"`);
    expect(error.hint).toMatchInlineSnapshot(`"SIGKILL usually means that the kernel ran out of memory."`);
  });

  test.each(["silent", "torn"])("%s: exit 0 without a terminal event is no success", async (mode) => {
    const error = await failureOf(runJob(job, fake(mode)));
    expect(`${error.code}: ${error.message}`).toBe("BRIDGE_CRASHED: The child process ended (exit 0) without a result");
  });

  test("a command that does not exist", async () => {
    const error = await failureOf(runJob(job, { command: "/no/such/python", args: [] }));
    expect(error.code).toBe("BRIDGE_NOT_INSTALLED");
    expect(error.message).toMatchInlineSnapshot(`"Cannot start /no/such/python: spawn /no/such/python ENOENT"`);
  });
});

describe("a failure that the child reports", () => {
  test.each([
    ["BAD_JOB", "BRIDGE_PROTOCOL"],
    ["BAD_DATA", "DATA_INVALID"],
    ["BAD_MODEL", "MODEL_INVALID"],
    ["NON_FINITE_LOSS", "TRAIN_FAILED"],
    ["OUT_OF_MEMORY", "OUT_OF_MEMORY"],
    ["DISK_FULL", "DISK_FULL"],
    ["ENGINE", "ENGINE_FAILED"],
    ["CANCELLED", "CANCELLED"],
    ["INTERNAL", "TRAIN_FAILED"],
  ])("%s is %s for the driver", async (code, expected) => {
    const error = await failureOf(runJob(job, fake("failure", {}, code)));
    expect(error).toMatchObject({ code: expected, message: `failed with ${code}`, facts: { failure_code: code } });
  });

  test("keeps its own hint and its traceback", async () => {
    const error = await failureOf(runJob(job, fake("failure", {}, "INTERNAL", "Try less.", "Traceback ...")));
    expect(error).toMatchObject({ hint: "Try less.", facts: { traceback: "Traceback ..." } });
  });

  test("INTERNAL outside training is a failed phase", async () => {
    const error = await failureOf(runJob(score_job, fake("failure", {}, "INTERNAL")));
    expect(error.code).toBe("PHASE_FAILED");
  });
});

describe("stopping", () => {
  test("ending stdin lets the child save and say CANCELLED", async () => {
    const controller = new AbortController();
    const onEvent = (event: ChildEvent) => void (event.type === "log" && controller.abort());
    const error = await failureOf(runJob(job, fake("hang", { onEvent, signal: controller.signal })));
    expect(`${error.code}: ${error.message}`).toBe("CANCELLED: failed with CANCELLED");
  });

  test("a child that does not listen is killed when the grace is over", async () => {
    const controller = new AbortController();
    const onEvent = (event: ChildEvent) => void (event.type === "log" && controller.abort());
    const error = await failureOf(runJob(job, fake("deaf", { onEvent, signal: controller.signal, grace_ms: 50 })));
    expect(error.code).toBe("CANCELLED");
    expect(error.message).toMatchInlineSnapshot(`"Cancelled; the child process ended (SIGKILL)"`);
  });

  test("the second signal kills at once", async () => {
    const [first, second] = [new AbortController(), new AbortController()];
    const onEvent = (event: ChildEvent) => {
      if (event.type !== "log") return;
      first.abort();
      second.abort();
    };
    const error = await failureOf(
      runJob(job, fake("deaf", { onEvent, signal: first.signal, kill_signal: second.signal })),
    );
    expect(error.code).toBe("CANCELLED");
  });

  test("an aborted signal starts nothing", async () => {
    const error = await failureOf(runJob(job, { command: "/no/such", args: [], signal: AbortSignal.abort() }));
    expect(error.code).toBe("CANCELLED");
  });

  test("what the child started dies with it", async () => {
    const { onEvent, message } = firstLog();
    await runJob(job, fake("grandchild", { onEvent }));
    await waitUntilGone(Number(await message));
  });

  test("a process that left the group and holds the event pipe is not waited for", async () => {
    const { onEvent, message } = firstLog();
    await runJob(job, fake("escaped_grandchild", { onEvent }));
    process.kill(Number(await message), "SIGKILL");
  });

  test("a handler that throws kills the child, and its error comes out unchanged", async () => {
    const full = new Error("journal: no space left on device");
    let pid = 0;
    const onEvent = async (event: ChildEvent) => {
      if (event.type === "hello") pid = event.pid;
      if (event.type === "log") throw full;
    };
    await expect(runJob(job, fake("deaf", { onEvent }))).rejects.toBe(full);
    await waitUntilGone(pid);
  });

  test("a child whose driver is killed reads the end of stdin", async () => {
    const driver = spawn("npx", ["tsx", DRIVER, FAKE, SCHEMA_SHA256], { stdio: ["ignore", "pipe", "inherit"] });
    const [driver_pid, child_pid] = await new Promise<number[]>((resolve) =>
      driver.stdout.on("data", (data: Buffer) => resolve(String(data).trim().split(" ").map(Number))),
    );
    process.kill(driver_pid as number, "SIGKILL");
    await waitUntilGone(child_pid as number);
  });
});

test("a malformed job is refused before anything starts", async () => {
  const malformed = { ...job, num_threads: 0, extra: 1 } as TrainJob;
  const error = await failureOf(runJob(malformed, { command: "/no/such", args: [] }));
  expect(error.code).toBe("BRIDGE_PROTOCOL");
  expect(error.message).toMatchInlineSnapshot(`
    "The train job is malformed:
    ✖ Unrecognized key: "extra"
    ✖ Too small: expected number to be >0
      → at num_threads"
  `);
});
