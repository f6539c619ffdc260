import type { Readable } from "node:stream";
import { DriverError } from "../errors.ts";

/** Longest event line. Tensors and rows never cross, only their files, so a longer line is a bug. */
export const MAX_LINE_BYTES = 1024 * 1024;
const NEWLINE = 0x0a;

/**
 * Yields the lines of a stream without their `\n`. A last line without `\n` is torn, since a writer ends every line,
 * and is dropped.
 *
 * @throws {DriverError} `BRIDGE_PROTOCOL` for a line above `MAX_LINE_BYTES` or one that is not UTF-8.
 */
export async function* readLines(stream: Readable): AsyncGenerator<string> {
  let parts: Buffer[] = [];
  let pending = 0;
  for await (const chunk of readUntilClosed(stream)) {
    let start = 0;
    for (let end = chunk.indexOf(NEWLINE); end !== -1; end = chunk.indexOf(NEWLINE, start)) {
      parts.push(chunk.subarray(start, end));
      checkLength(pending + end - start);
      yield decode(Buffer.concat(parts));
      parts = [];
      pending = 0;
      start = end + 1;
    }
    parts.push(chunk.subarray(start));
    pending += chunk.length - start;
    checkLength(pending);
  }
}

/** The chunks of a stream. One that is destroyed or reset under us has ended: the exit of its writer tells the rest. */
async function* readUntilClosed(stream: Readable): AsyncGenerator<Buffer> {
  try {
    yield* stream as AsyncIterable<Buffer>;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== "ERR_STREAM_PREMATURE_CLOSE" && code !== "ECONNRESET") throw error;
  }
}

function checkLength(bytes: number): void {
  if (bytes <= MAX_LINE_BYTES) return;
  throw new DriverError("BRIDGE_PROTOCOL", `An event line is too long: expected ${MAX_LINE_BYTES} bytes at most`);
}

function decode(line: Buffer): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(line);
  } catch (cause) {
    throw new DriverError("BRIDGE_PROTOCOL", "The event stream holds a line that is not UTF-8", { cause });
  }
}
