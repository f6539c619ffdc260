import { closeSync, fstatSync, writeFileSync } from "node:fs";
import { open } from "node:fs/promises";
import { z } from "zod";
import { DriverError } from "../errors.ts";
import { type FloatDtype, isFloatDtype, toFloat32 } from "./floats.ts";
import { openFile, readFully } from "./open-file.ts";

/**
 * Bytes per element of every dtype of the format.
 *
 * Source: safetensors 0.6 `safetensors/src/tensor.rs` `Dtype`; the sub-byte dtypes are left out and so refused.
 */
const DTYPE_BYTES: Readonly<Record<string, number>> = {
  BOOL: 1,
  U8: 1,
  I8: 1,
  F8_E5M2: 1,
  F8_E4M3: 1,
  F8_E8M0: 1,
  I16: 2,
  U16: 2,
  F16: 2,
  BF16: 2,
  I32: 4,
  U32: 4,
  F32: 4,
  F64: 8,
  I64: 8,
  U64: 8,
  C64: 8,
};

/** Source: safetensors 0.6 `safetensors/src/tensor.rs` `MAX_HEADER_SIZE`. */
const MAX_HEADER_BYTES = 100_000_000;
const CHUNK_BYTES = 4 << 20;

/** Where one tensor lies: `bytes` bytes from byte `start` of the file; `shape` as in torch, row-major. */
export interface TensorRef {
  name: string;
  dtype: string;
  shape: number[];
  start: number;
  bytes: number;
}

export interface SafetensorsFile {
  file: string;
  metadata: Record<string, string>;
  tensors: Map<string, TensorRef>;
}

const Entry = z.strictObject({
  dtype: z.string(),
  shape: z.array(z.int().nonnegative()).max(16),
  data_offsets: z.tuple([z.int().nonnegative(), z.int().nonnegative()]),
});

function refuse(file: string, message: string, facts: Record<string, unknown> = {}): DriverError {
  return new DriverError("FORMAT_INVALID", `${file} is not a valid safetensors file: ${message}`, {
    hint: "Copy or download the file again.",
    facts: { file, ...facts },
  });
}

/**
 * The tensors of a safetensors file, without reading their data.
 *
 * @throws DriverError FORMAT_INVALID when the header does not fit the file, or a tensor is out of bounds, overlaps
 * another, leaves a gap or has another size than its shape says: it would be read as other numbers.
 */
export function openSafetensors(file: string): SafetensorsFile {
  const { header, data_start, file_bytes } = readHeader(file);
  const metadata = z.record(z.string(), z.string()).safeParse(header.__metadata__ ?? {});
  if (!metadata.success) throw refuse(file, "expected __metadata__ to map strings to strings");
  const refs: TensorRef[] = [];
  for (const [name, entry] of Object.entries(header)) {
    if (name !== "__metadata__") refs.push(tensorRef(file, name, entry, data_start));
  }
  refs.sort((a, b) => a.start - b.start || a.bytes - b.bytes);
  let end = data_start;
  for (const ref of refs) {
    if (ref.start !== end) throw refuse(file, `expected ${ref.name} to start at byte ${end}, got ${ref.start}`);
    end += ref.bytes;
  }
  if (end !== file_bytes) throw refuse(file, `expected ${end} bytes, got ${file_bytes}`, { file_bytes });
  return { file, metadata: metadata.data, tensors: new Map(refs.map((ref) => [ref.name, ref])) };
}

function readHeader(file: string): { header: Record<string, unknown>; data_start: number; file_bytes: number } {
  const fd = openFile(file);
  try {
    const file_bytes = fstatSync(fd).size;
    if (file_bytes < 8) throw refuse(file, `expected at least 8 bytes, got ${file_bytes}`);
    const header_bytes = readExactly(fd, file, 0, 8).readBigUInt64LE(0);
    const limit = Math.min(file_bytes - 8, MAX_HEADER_BYTES);
    if (header_bytes > BigInt(limit))
      throw refuse(file, `expected a header of at most ${limit} bytes, got ${header_bytes}`);
    const text = readExactly(fd, file, 8, Number(header_bytes)).toString("utf8");
    return { header: parseHeader(file, text), data_start: 8 + Number(header_bytes), file_bytes };
  } finally {
    closeSync(fd);
  }
}

function parseHeader(file: string, text: string): Record<string, unknown> {
  let header: unknown;
  try {
    header = JSON.parse(text);
  } catch (cause) {
    throw refuse(
      file,
      `expected a JSON header, got ${JSON.stringify(text.slice(0, 40))} (${(cause as Error).message})`,
    );
  }
  if (typeof header !== "object" || header === null || Array.isArray(header))
    throw refuse(file, "expected a JSON object");
  return header as Record<string, unknown>;
}

function tensorRef(file: string, name: string, raw: unknown, data_start: number): TensorRef {
  const entry = Entry.safeParse(raw);
  if (!entry.success)
    throw refuse(file, `expected ${name} to have dtype, shape and data_offsets, got ${JSON.stringify(raw)}`);
  const { dtype, shape, data_offsets } = entry.data;
  const element_bytes = Object.hasOwn(DTYPE_BYTES, dtype) ? DTYPE_BYTES[dtype] : undefined;
  if (element_bytes === undefined)
    throw refuse(file, `expected a known dtype for ${name}, got ${JSON.stringify(dtype)}`);
  const expected = shape.reduce((product, n) => product * n, element_bytes);
  const bytes = data_offsets[1] - data_offsets[0];
  if (bytes !== expected) {
    throw refuse(file, `expected ${expected} bytes for ${name} (${dtype} [${shape.join(", ")}]), got ${bytes}`);
  }
  return { name, dtype, shape, start: data_start + data_offsets[0], bytes };
}

function readExactly(fd: number, file: string, start: number, bytes: number): Buffer {
  const buffer = Buffer.allocUnsafe(bytes);
  const n = readFully(fd, buffer, start);
  if (n < bytes) throw refuse(file, `expected ${bytes} bytes at byte ${start}, got ${n}`);
  return buffer;
}

/**
 * One tensor as float32, row-major, whatever of F32, F16 and BF16 it is stored as.
 *
 * @throws DriverError FORMAT_INVALID for every other dtype.
 */
export function readTensorF32(file: string, tensor: TensorRef): Float32Array {
  const dtype = floatDtype(file, tensor);
  const fd = openFile(file);
  try {
    return toFloat32(readExactly(fd, file, tensor.start, tensor.bytes), dtype);
  } finally {
    closeSync(fd);
  }
}

/** The tensor's dtype if it is one of F32, F16 and BF16. */
export function floatDtype(file: string, tensor: TensorRef): FloatDtype {
  if (isFloatDtype(tensor.dtype)) return tensor.dtype;
  throw refuse(file, `expected ${tensor.name} to be F32, F16 or BF16, got ${tensor.dtype}`);
}

/** The bytes of one tensor in chunks of at most `chunk_bytes`, a multiple of 8, so that no element is cut. */
export async function* readTensorBytes(
  file: string,
  tensor: TensorRef,
  chunk_bytes: number = CHUNK_BYTES,
): AsyncGenerator<Buffer> {
  const handle = await open(file, "r");
  try {
    let done = 0;
    while (done < tensor.bytes) {
      const chunk = Buffer.allocUnsafe(Math.min(chunk_bytes, tensor.bytes - done));
      let filled = 0;
      while (filled < chunk.length) {
        const { bytesRead } = await handle.read(chunk, filled, chunk.length - filled, tensor.start + done + filled);
        if (bytesRead === 0)
          throw refuse(file, `expected ${tensor.bytes} bytes of ${tensor.name}, got ${done + filled}`);
        filled += bytesRead;
      }
      done += chunk.length;
      yield chunk;
    }
  } finally {
    await handle.close();
  }
}

/** A tensor to be written; `data` holds its bytes, little-endian and row-major. */
export interface TensorData {
  dtype: string;
  shape: readonly number[];
  data: Uint8Array;
}

/** Writes a safetensors file in one go, tensors in the order given. Meant for small files. */
export function writeSafetensors(
  path: string,
  tensors: ReadonlyMap<string, TensorData> | Readonly<Record<string, TensorData>>,
): void {
  const entries = tensors instanceof Map ? [...tensors.entries()] : Object.entries(tensors);
  let offset = 0;
  const header: [string, unknown][] = entries.map(([name, { dtype, shape, data }]) => {
    const data_offsets = [offset, offset + data.byteLength];
    offset += data.byteLength;
    return [name, { dtype, shape, data_offsets }];
  });
  // fromEntries defines own properties, so a tensor called __proto__ survives.
  const json = Buffer.from(JSON.stringify(Object.fromEntries(header)));
  const padded = Buffer.concat([json, Buffer.alloc((8 - (json.length % 8)) % 8, " ")]);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(padded.length));
  writeFileSync(path, Buffer.concat([length, padded, ...entries.map(([, tensor]) => tensor.data)]));
}
