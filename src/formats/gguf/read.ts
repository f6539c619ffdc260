import { closeSync, fstatSync } from "node:fs";
import { DriverError } from "../../errors.ts";
import { openFile, readFully } from "../open-file.ts";
import {
  ALIGNMENT_BYTES,
  alignUp,
  type GgufValue,
  MAGIC,
  type NumberType,
  TENSOR_TYPES,
  type TensorType,
  tensorBytes,
  VALUE_BYTES,
  VALUE_TYPES,
  type ValueType,
} from "./types.ts";

const WINDOW_BYTES = 1 << 20;
/** llama.cpp refuses longer names and more dimensions. Source: `ggml.h` `GGML_MAX_NAME`, `GGML_MAX_DIMS`. */
const MAX_NAME_BYTES = 63;
const MAX_DIMENSIONS = 4;

const VALUE_NAMES = new Map(Object.entries(VALUE_TYPES).map(([name, id]) => [id as number, name as ValueType]));
const TENSOR_NAMES = new Map(Object.entries(TENSOR_TYPES).map(([name, { id }]) => [id as number, name as TensorType]));

/** Where a tensor lies: `bytes` bytes from byte `start` of the file; `ne` is the reverse of torch's shape. */
export interface GgufTensorRef {
  name: string;
  type: TensorType;
  ne: number[];
  start: number;
  bytes: number;
}

export interface GgufFile {
  file: string;
  metadata: Map<string, GgufValue>;
  tensors: Map<string, GgufTensorRef>;
}

/**
 * Metadata and tensor places of a GGUF file (version 2 or 3, little-endian), without reading tensor data.
 *
 * @throws DriverError NOT_FOUND when there is no such file, FORMAT_INVALID when anything lies outside the file, is named twice or has an unknown type.
 */
export function readGguf(file: string): GgufFile {
  const fd = openFile(file);
  try {
    const cursor = new Cursor(fd, file, fstatSync(fd).size);
    return parseGguf(cursor, file);
  } finally {
    closeSync(fd);
  }
}

/** All bytes of one tensor. */
export function readGgufTensor(file: string, tensor: GgufTensorRef): Buffer {
  const fd = openFile(file);
  try {
    const bytes = Buffer.allocUnsafe(tensor.bytes);
    const n = readFully(fd, bytes, tensor.start);
    if (n !== bytes.length) throw refuse(file, `expected ${bytes.length} bytes of ${tensor.name}, got ${n}`);
    return bytes;
  } finally {
    closeSync(fd);
  }
}

function refuse(file: string, message: string): DriverError {
  return new DriverError("FORMAT_INVALID", `${file} is not a valid GGUF file: ${message}`, {
    hint: "Convert the model or the adapter again.",
    facts: { file },
  });
}

/** Reads forward through a file of which only a window is in memory; every length is checked against what is left. */
class Cursor {
  readonly #fd: number;
  readonly #file: string;
  readonly size: number;
  position = 0;
  #window = Buffer.alloc(0);
  #window_start = 0;

  constructor(fd: number, file: string, size: number) {
    this.#fd = fd;
    this.#file = file;
    this.size = size;
  }

  fail(message: string): DriverError {
    return refuse(this.#file, `${message} at byte ${this.position}`);
  }

  /** Checks that `count` items of at least `item_bytes` can still follow, before anything is allocated for them. */
  expectRoom(count: number, item_bytes: number, what: string): void {
    const left = this.size - this.position;
    if (count * item_bytes > left) throw this.fail(`expected ${what} within the ${left} bytes left, got ${count}`);
  }

  take(bytes: number): Buffer {
    this.expectRoom(bytes, 1, "a length");
    const offset = this.position - this.#window_start;
    if (offset + bytes > this.#window.length) {
      const length = Math.min(Math.max(bytes, WINDOW_BYTES), this.size - this.position);
      this.#window = Buffer.allocUnsafe(length);
      this.#window_start = this.position;
      if (readFully(this.#fd, this.#window, this.position) !== length)
        throw this.fail("expected more bytes, got the end");
    }
    const start = this.position - this.#window_start;
    this.position += bytes;
    return this.#window.subarray(start, start + bytes);
  }

  u32(): number {
    return this.take(4).readUInt32LE();
  }

  /** A 64-bit count or offset; beyond 2^53 it cannot be true of any file. */
  u64(): number {
    const value = this.take(8).readBigUInt64LE();
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw this.fail(`expected a number below 2^53, got ${value}`);
    return Number(value);
  }

  string(): string {
    const bytes = this.u64();
    this.expectRoom(bytes, 1, "a string length");
    return this.take(bytes).toString("utf8");
  }
}

function parseGguf(cursor: Cursor, file: string): GgufFile {
  const magic = cursor.take(4).toString("latin1");
  if (magic !== MAGIC) throw refuse(file, `expected the magic ${MAGIC}, got ${JSON.stringify(magic)}`);
  const version = cursor.u32();
  if (version !== 2 && version !== 3) throw refuse(file, `expected version 2 or 3, got ${version}`);
  const n_tensors = cursor.u64();
  const n_values = cursor.u64();
  cursor.expectRoom(n_tensors, 24, "a tensor count");
  cursor.expectRoom(n_values, 13, "a metadata count");
  const metadata = new Map<string, GgufValue>();
  for (let i = 0; i < n_values; i++) {
    const key = cursor.string();
    if (metadata.has(key)) throw cursor.fail(`expected each key once, got ${JSON.stringify(key)} again`);
    metadata.set(key, readValue(cursor));
  }
  const alignment = metadata.get("general.alignment")?.value ?? ALIGNMENT_BYTES;
  if (alignment !== ALIGNMENT_BYTES)
    throw refuse(file, `expected general.alignment ${ALIGNMENT_BYTES}, got ${alignment}`);
  return { file, metadata, tensors: readTensorInfos(cursor, n_tensors) };
}

function readValueType(cursor: Cursor): ValueType {
  const id = cursor.u32();
  const type = VALUE_NAMES.get(id);
  if (type === undefined) throw cursor.fail(`expected a value type from 0 to 12, got ${id}`);
  return type;
}

function readValue(cursor: Cursor): GgufValue {
  const type = readValueType(cursor);
  if (type !== "array") return { type, value: readScalar(cursor, type) } as GgufValue;
  const of = readValueType(cursor);
  if (of === "array") throw cursor.fail("expected an array of plain values, got an array of arrays");
  const count = cursor.u64();
  cursor.expectRoom(count, of === "string" ? 8 : VALUE_BYTES[of], "an array length");
  return { type, of, value: Array.from({ length: count }, () => readScalar(cursor, of)) } as GgufValue;
}

function readScalar(cursor: Cursor, type: Exclude<ValueType, "array">): string | boolean | number {
  if (type === "string") return cursor.string();
  if (type === "bool") return cursor.take(1)[0] !== 0;
  return readNumber(cursor, type);
}

function readNumber(cursor: Cursor, type: NumberType): number {
  const bytes = cursor.take(VALUE_BYTES[type]);
  const value = {
    u8: () => bytes.readUInt8(),
    i8: () => bytes.readInt8(),
    u16: () => bytes.readUInt16LE(),
    i16: () => bytes.readInt16LE(),
    u32: () => bytes.readUInt32LE(),
    i32: () => bytes.readInt32LE(),
    f32: () => bytes.readFloatLE(),
    u64: () => Number(bytes.readBigUInt64LE()),
    i64: () => Number(bytes.readBigInt64LE()),
    f64: () => bytes.readDoubleLE(),
  }[type]();
  if ((type === "u64" || type === "i64") && !Number.isSafeInteger(value)) {
    throw cursor.fail(`expected an integer below 2^53, got ${value}`);
  }
  return value;
}

function readTensorInfos(cursor: Cursor, n_tensors: number): Map<string, GgufTensorRef> {
  const refs: GgufTensorRef[] = [];
  for (let i = 0; i < n_tensors; i++) refs.push(readTensorInfo(cursor));
  const data_start = alignUp(cursor.position);
  const tensors = new Map<string, GgufTensorRef>();
  for (const ref of refs) {
    ref.start += data_start;
    if (tensors.has(ref.name)) throw cursor.fail(`expected each tensor once, got ${ref.name} again`);
    if (ref.start + ref.bytes > cursor.size) {
      throw cursor.fail(`expected ${ref.name} to end within ${cursor.size} bytes, got ${ref.start + ref.bytes}`);
    }
    tensors.set(ref.name, ref);
  }
  return tensors;
}

/** `start` is relative to the data here. */
function readTensorInfo(cursor: Cursor): GgufTensorRef {
  const name = cursor.string();
  if (Buffer.byteLength(name) > MAX_NAME_BYTES)
    throw cursor.fail(`expected a name of at most ${MAX_NAME_BYTES} bytes, got ${name}`);
  const n_dimensions = cursor.u32();
  if (n_dimensions < 1 || n_dimensions > MAX_DIMENSIONS)
    throw cursor.fail(`expected 1 to 4 dimensions, got ${n_dimensions}`);
  const ne = Array.from({ length: n_dimensions }, () => cursor.u64());
  const type_id = cursor.u32();
  const type = TENSOR_NAMES.get(type_id);
  if (type === undefined)
    throw cursor.fail(`expected ${name} to be ${Object.keys(TENSOR_TYPES).join(", ")}, got type ${type_id}`);
  const start = cursor.u64();
  if (start % ALIGNMENT_BYTES !== 0)
    throw cursor.fail(`expected ${name} at a multiple of ${ALIGNMENT_BYTES}, got ${start}`);
  const bytes = tensorBytes(type, ne);
  if (!Number.isSafeInteger(bytes) || (ne[0] ?? 0) % TENSOR_TYPES[type].block !== 0) {
    throw cursor.fail(`expected a possible shape for ${name}, got [${ne.join(", ")}]`);
  }
  return { name, type, ne, start, bytes };
}
