import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import type { DriverError } from "../../../src/errors.ts";
import { type ChildEvent, SCHEMA_SHA256 } from "../../../src/protocol/wire.ts";
import { engineCommand } from "../../../src/runtime/command.ts";
import { Bench, block, prompt } from "./fixture.ts";

vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });

let bench: Bench;
beforeAll(async () => {
  bench = await Bench.create();
});
afterAll(() => bench[Symbol.dispose]());

/** A minute of work in many small steps. */
const endless = () => bench.sampleJob(Array.from({ length: 5000 }, (_, i) => block(`${i}`, prompt(20), 16)));

test("says who it is before anything else", async () => {
  const events: ChildEvent[] = [];
  const { result, hello } = await bench.run(bench.sampleJob([block("k", prompt(5), 2)]), {
    onEvent: (event) => void events.push(event),
  });
  expect(events.map(({ type }) => type)).toEqual(["hello", "block", "sample_result"]);
  expect(hello).toMatchObject({
    schema_sha256: SCHEMA_SHA256,
    runtime: `Node ${process.versions.node}`,
    device: "cpu",
  });
  expect(hello.packages).toMatchObject({ "node-llama-cpp": "3.22.1", "llama.cpp": expect.any(String) });
  const tokens = events.flatMap((event) => (event.type === "block" ? event.responses : [])).flatMap((r) => r.token_ids);
  expect(result).toMatchObject({ blocks: 1, response_tokens: tokens.length });
});

test("no event is lost when the driver reads slowly and the process exits", async () => {
  const blocks = Array.from({ length: 60 }, (_, i) => block(`${i}`, prompt(4), 8));
  const keys: string[] = [];
  await bench.run(bench.sampleJob(blocks, { stop_token_ids: [0] }), {
    onEvent: async (event) => {
      if (event.type === "block") keys.push(event.key);
      await sleep(5);
    },
  });
  expect(keys).toEqual(blocks.map(({ key }) => key));
});

/** Twenty times what it takes on a quiet machine. */
const PROMPTLY_MS = 2000;

describe("ends promptly", () => {
  const cancelOn = async (type: ChildEvent["type"] | "start"): Promise<{ code: string; ms: number }> => {
    const controller = new AbortController();
    let aborted = 0;
    const abort = () => {
      aborted ||= performance.now();
      controller.abort();
    };
    if (type === "start") setTimeout(abort, 50);
    const error: DriverError = await bench
      .run(endless(), { signal: controller.signal, onEvent: (event) => void (event.type === type && abort()) })
      .then(
        () => expect.unreachable(),
        (e) => e,
      );
    return { code: error.code, ms: performance.now() - aborted };
  };

  test("of being cancelled between tokens", async () => {
    const { code, ms } = await cancelOn("block");
    expect(code).toBe("CANCELLED");
    expect(ms).toBeLessThan(PROMPTLY_MS);
  });

  test("of being cancelled while the model is loaded", async () => {
    const { code, ms } = await cancelOn("hello");
    expect(code).toBe("CANCELLED");
    expect(ms).toBeLessThan(PROMPTLY_MS);
  });

  test("of being cancelled before llama.cpp is there", async () => {
    const { code, ms } = await cancelOn("start");
    expect(code).toBe("CANCELLED");
    expect(ms).toBeLessThan(5000); // Node itself must start before it can hear
  });

  test("of its driver being killed", async () => {
    const driver = spawnDriver(bench.file(endless()));
    const pid = await firstBlockPid(driver);
    driver.kill("SIGKILL");
    await once(driver, "close");
    const killed = performance.now();
    while (isAlive(pid) && performance.now() - killed < 5000) await sleep(10);
    expect(performance.now() - killed).toBeLessThan(PROMPTLY_MS);
  });
});

test("a job that is none fails as one, after hello", async () => {
  const { events, code } = await talk("{}\n");
  expect(events.map(({ type }) => type)).toEqual(["hello", "failure"]);
  expect(events[1]).toMatchObject({ code: "BAD_JOB", traceback: null });
  expect(code).toBe(1);
});

test("the driver's side does not load llama.cpp", () => {
  const source = readFileSync(fileURLToPath(new URL("../../../src/runtime/command.ts", import.meta.url)), "utf8");
  expect(source).not.toMatch(/from "(\.|node-llama-cpp)/);
});

function spawnDriver(jobFile: string): ChildProcess {
  const { command, args } = engineCommand();
  const loader = args.slice(0, -1); // tsx: the driver is TypeScript too
  const script = fileURLToPath(new URL("driver.ts", import.meta.url));
  return spawn(command, [...loader, script, jobFile], { stdio: ["ignore", "pipe", "inherit"] });
}

async function firstBlockPid(driver: ChildProcess): Promise<number> {
  for await (const line of createInterface({ input: driver.stdout as NodeJS.ReadableStream })) return Number(line);
  throw new Error("The driver ended without a block");
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
}

async function talk(stdin: string): Promise<{ events: ChildEvent[]; code: number | null }> {
  const { command, args, env } = engineCommand();
  const child = spawn(command, args, {
    stdio: ["pipe", "ignore", "ignore", "pipe"],
    env: { ...process.env, ...env, BRIDGE_EVENT_FD: "3" },
  });
  const closed = once(child, "close");
  child.stdin?.write(stdin);
  const events: ChildEvent[] = [];
  const lines = createInterface({ input: child.stdio[3] as NodeJS.ReadableStream });
  for await (const line of lines) events.push(JSON.parse(line));
  const [code] = await closed;
  return { events, code };
}
