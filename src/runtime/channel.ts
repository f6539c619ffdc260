import { writeSync } from "node:fs";
import type { ChildEvent } from "../protocol/wire.ts";

/** Milliseconds to wait before trying again when the pipe to the driver is full. */
const FULL_PIPE_WAIT_MS = 2;

/** Sends one event. Returns once the kernel has all of it, so that nothing is lost when the process exits next. */
export type Send = (event: ChildEvent) => void;

/**
 * The event stream to the driver: one JSON object a line on the descriptor named by `BRIDGE_EVENT_FD`.
 *
 * @throws {Error} When no driver named a descriptor: events would land in some unrelated file.
 */
export function openChannel(env: NodeJS.ProcessEnv): Send {
  const fd = Number(env.BRIDGE_EVENT_FD);
  if (!Number.isInteger(fd) || fd < 3)
    throw new Error("BRIDGE_EVENT_FD is not set: this process is started by vivarium, not by hand");
  return (event) => writeAll(fd, Buffer.from(`${JSON.stringify(event)}\n`, "utf8"));
}

function writeAll(fd: number, bytes: Buffer): void {
  for (let offset = 0; offset < bytes.length; ) offset += tryWrite(fd, bytes, offset);
}

/** Bytes written: fewer than asked for, or none, when the driver reads slowly. */
function tryWrite(fd: number, bytes: Buffer, offset: number): number {
  try {
    return writeSync(fd, bytes, offset);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EAGAIN") throw error;
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, FULL_PIPE_WAIT_MS);
    return 0;
  }
}

/** The first line of stdin, and a signal that aborts when stdin ends: cancelled, or the driver is gone. */
export interface Inbox {
  job: Promise<string>;
  cancelled: AbortSignal;
}

/** Starts reading stdin. `job` rejects when stdin ends before a whole line came. */
export function openInbox(stdin: NodeJS.ReadStream): Inbox {
  const controller = new AbortController();
  const job = new Promise<string>((resolve, reject) => {
    let text = "";
    let complete = false;
    stdin.setEncoding("utf8");
    stdin.on("data", (chunk: string) => {
      if (complete) return;
      text += chunk;
      const end = text.indexOf("\n");
      if (end < 0) return;
      complete = true;
      resolve(text.slice(0, end));
    });
    const ended = () => {
      controller.abort();
      reject(new Error("Standard input ended before a job came"));
    };
    stdin.once("end", ended);
    stdin.once("error", ended);
  });
  return { job, cancelled: controller.signal };
}
