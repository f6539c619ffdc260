import { createHash } from "node:crypto";
import { type FileHandle, open, rename, rm } from "node:fs/promises";
import { DriverError } from "../../errors.ts";
import {
  alignUp,
  type GgufValue,
  MAGIC,
  type NumberType,
  TENSOR_TYPES,
  type TensorType,
  tensorBytes,
  VALUE_TYPES,
  VERSION,
} from "./types.ts";

export type Metadata = ReadonlyMap<string, GgufValue>;

/** A tensor to be written: its shape in ggml's order, and its bytes in pieces that are pulled one at a time. */
export interface GgufTensor {
  name: string;
  type: TensorType;
  ne: readonly number[];
  chunks: () => AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
}

export interface Written {
  bytes: number;
  sha256: string;
  tensors: number;
}

export const text = (value: string): GgufValue => ({ type: "string", value });
export const u32 = (value: number): GgufValue => ({ type: "u32", value });
export const f32 = (value: number): GgufValue => ({ type: "f32", value });

/**
 * Writes a GGUF file to `<out>.part` and renames it once it is on the disk, so that `out` is whole or absent.
 *
 * @throws DriverError DISK_FULL when the disk is full, FORMAT_INVALID when a tensor has another size than its shape says.
 */
export async function writeGguf(out: string, metadata: Metadata, tensors: readonly GgufTensor[]): Promise<Written> {
  const part = `${out}.part`;
  let handle: FileHandle | undefined;
  try {
    handle = await open(part, "w");
    const sink = new Sink(handle);
    await writeBody(sink, metadata, tensors);
    await handle.sync();
    await handle.close();
    handle = undefined;
    await rename(part, out);
    return { bytes: sink.bytes, sha256: sink.sha256(), tensors: tensors.length };
  } catch (error) {
    await handle?.close();
    await rm(part, { force: true });
    throw diskFull(error, out);
  }
}

function diskFull(error: unknown, out: string): unknown {
  if ((error as NodeJS.ErrnoException).code !== "ENOSPC") return error;
  return new DriverError("DISK_FULL", `Cannot write ${out}: the disk is full`, {
    hint: "Free some space, or point VIVARIUM_HOME at another disk.",
    facts: { out },
    cause: error,
  });
}

/** Counts and hashes what goes into the file. */
class Sink {
  bytes = 0;
  readonly #handle: FileHandle;
  readonly #hash = createHash("sha256");

  constructor(handle: FileHandle) {
    this.#handle = handle;
  }

  async write(chunk: Uint8Array): Promise<void> {
    this.#hash.update(chunk);
    let done = 0;
    while (done < chunk.length) done += (await this.#handle.write(chunk, done, chunk.length - done)).bytesWritten;
    this.bytes += chunk.length;
  }

  /** Pads to the next multiple of the alignment. */
  async align(): Promise<void> {
    await this.write(new Uint8Array(alignUp(this.bytes) - this.bytes));
  }

  sha256(): string {
    return this.#hash.digest("hex");
  }
}

async function writeBody(sink: Sink, metadata: Metadata, tensors: readonly GgufTensor[]): Promise<void> {
  const header = [Buffer.from(MAGIC), uint(VERSION, 4), uint(tensors.length, 8), uint(metadata.size, 8)];
  for (const [key, value] of metadata) {
    header.push(string(key));
    for (const part of encodeValue(value)) header.push(part); // not a spread: a vocabulary exceeds the argument limit
  }
  let offset = 0;
  for (const { name, ne, type } of tensors) {
    const dimensions = ne.map((n) => uint(n, 8));
    header.push(string(name), uint(ne.length, 4), ...dimensions, uint(TENSOR_TYPES[type].id, 4), uint(offset, 8));
    offset += alignUp(tensorBytes(type, ne));
  }
  await sink.write(Buffer.concat(header));
  await sink.align();
  for (const tensor of tensors) await writeTensor(sink, tensor);
}

async function writeTensor(sink: Sink, { name, type, ne, chunks }: GgufTensor): Promise<void> {
  const start = sink.bytes;
  const expected = tensorBytes(type, ne);
  for await (const chunk of chunks()) await sink.write(chunk);
  const got = sink.bytes - start;
  if (got !== expected) {
    throw new DriverError(
      "FORMAT_INVALID",
      `Cannot write ${name}: expected ${expected} bytes (${type} [${ne.join(", ")}]), got ${got}`,
    );
  }
  await sink.align();
}

function uint(value: number, bytes: 4 | 8): Buffer {
  const out = Buffer.alloc(bytes);
  if (bytes === 4) out.writeUInt32LE(value);
  else out.writeBigUInt64LE(BigInt(value));
  return out;
}

function string(value: string): Buffer {
  const bytes = Buffer.from(value, "utf8");
  return Buffer.concat([uint(bytes.length, 8), bytes]);
}

function encodeValue(value: GgufValue): Buffer[] {
  if (value.type !== "array") return [uint(VALUE_TYPES[value.type], 4), encodeScalar(value.type, value.value)];
  const items = value.value.map((item) => encodeScalar(value.of, item));
  return [uint(VALUE_TYPES.array, 4), uint(VALUE_TYPES[value.of], 4), uint(items.length, 8), ...items];
}

function encodeScalar(type: NumberType | "bool" | "string", value: number | boolean | string): Buffer {
  if (type === "string") return string(String(value));
  if (type === "bool") return Buffer.from([value ? 1 : 0]);
  return encodeNumber(type, Number(value));
}

function encodeNumber(type: NumberType, value: number): Buffer {
  const out = Buffer.alloc(8);
  const end: number = {
    u8: () => out.writeUInt8(value),
    i8: () => out.writeInt8(value),
    u16: () => out.writeUInt16LE(value),
    i16: () => out.writeInt16LE(value),
    u32: () => out.writeUInt32LE(value),
    i32: () => out.writeInt32LE(value),
    f32: () => out.writeFloatLE(value),
    u64: () => out.writeBigUInt64LE(BigInt(value)),
    i64: () => out.writeBigInt64LE(BigInt(value)),
    f64: () => out.writeDoubleLE(value),
  }[type]();
  return out.subarray(0, end);
}
