import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { DriverError } from "../../../../src/errors.ts";
import { readGguf, readGgufTensor } from "../../../../src/formats/gguf/read.ts";
import type { GgufValue } from "../../../../src/formats/gguf/types.ts";
import { tensorBytes } from "../../../../src/formats/gguf/types.ts";
import { f32, type GgufTensor, text, u32, writeGguf } from "../../../../src/formats/gguf/write.ts";
import { failure, tempDir } from "../fixtures.ts";

const scalar = fc.oneof(
  fc.record({ type: fc.constant("u32" as const), value: fc.nat() }),
  fc.record({ type: fc.constant("i64" as const), value: fc.maxSafeInteger() }),
  fc.record({ type: fc.constant("i8" as const), value: fc.integer({ min: -128, max: 127 }) }),
  fc.record({ type: fc.constant("f32" as const), value: fc.float({ noNaN: true }) }),
  fc.record({ type: fc.constant("f64" as const), value: fc.double({ noNaN: true }) }),
  fc.record({ type: fc.constant("bool" as const), value: fc.boolean() }),
  fc.record({ type: fc.constant("string" as const), value: fc.string({ unit: "grapheme" }) }),
);
const array = fc.oneof(
  fc.record({ type: fc.constant("array" as const), of: fc.constant("string" as const), value: fc.array(fc.string()) }),
  fc.record({ type: fc.constant("array" as const), of: fc.constant("i32" as const), value: fc.array(fc.integer()) }),
  fc.record({ type: fc.constant("array" as const), of: fc.constant("bool" as const), value: fc.array(fc.boolean()) }),
);
const metadata = fc
  .dictionary(
    fc.string({ minLength: 1 }).filter((key) => key !== "general.alignment"),
    fc.oneof(scalar, array),
    { maxKeys: 6 },
  )
  .map((record) => new Map(Object.entries(record) as [string, GgufValue][]));
const tensors = fc.uniqueArray(
  fc.tuple(
    fc.string({ minLength: 1, maxLength: 12 }),
    fc.constantFrom("F32", "F16", "BF16", "Q8_0"),
    fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 3 }),
  ),
  { selector: ([name]) => name, maxLength: 4 },
);

const small = async (file: string) => {
  const data = Uint8Array.from({ length: 24 }, (_, i) => i);
  const values = new Map<string, GgufValue>([
    ["a", text("é")],
    ["b", u32(7)],
    ["c", { type: "array", of: "string", value: ["x", "yz"] }],
    ["d", f32(0.5)],
  ]);
  const tensor: GgufTensor = { name: "t", type: "F32", ne: [2, 3], chunks: () => [data] };
  return { written: await writeGguf(file, values, [tensor]), data };
};

describe("writeGguf and readGguf", () => {
  test("give back any metadata and tensors", async () => {
    using dir = tempDir();
    const file = dir.file("x.gguf");
    await fc.assert(
      fc.asyncProperty(metadata, tensors, async (values, shapes) => {
        const planned = shapes.map(([name, type, rest], i): GgufTensor & { data: Uint8Array } => {
          const ne = type === "Q8_0" ? [32, ...rest.slice(1)] : rest;
          const data = new Uint8Array(tensorBytes(type, ne)).fill(i + 1);
          return { name, type, ne, data, chunks: () => [data.subarray(0, 3), data.subarray(3)] };
        });
        const written = await writeGguf(file, values, planned);
        const bytes = readFileSync(file);
        expect(written).toEqual({
          bytes: bytes.length,
          sha256: createHash("sha256").update(bytes).digest("hex"),
          tensors: planned.length,
        });
        const read = readGguf(file);
        expect([...read.metadata]).toEqual([...values]);
        expect([...read.tensors.keys()]).toEqual(planned.map(({ name }) => name));
        for (const { name, type, ne, data } of planned) {
          const ref = read.tensors.get(name);
          if (ref === undefined) throw new Error(name);
          expect([ref.type, ref.ne, ref.start % 32]).toEqual([type, ne, 0]);
          expect(readGgufTensor(file, ref)).toEqual(Buffer.from(data));
        }
      }),
      { numRuns: 60 },
    );
  });

  test("a file cut at any byte is refused, save for padding", async () => {
    using dir = tempDir();
    const file = dir.file("x.gguf");
    const { data } = await small(file);
    const whole = readFileSync(file);
    const end = whole.length - (32 - data.length);
    for (let n = 0; n < end; n++) {
      writeFileSync(file, whole.subarray(0, n));
      expect((await failure(() => readGguf(file))).code).toBe("FORMAT_INVALID");
    }
  });

  test("a file with any byte changed is read or refused, and nothing else", async () => {
    using dir = tempDir();
    const file = dir.file("x.gguf");
    await small(file);
    const whole = readFileSync(file);
    fc.assert(
      fc.property(fc.nat(whole.length - 1), fc.nat(255), (at, byte) => {
        const changed = Buffer.from(whole);
        changed[at] = byte;
        writeFileSync(file, changed);
        try {
          const read = readGguf(file);
          for (const tensor of read.tensors.values()) readGgufTensor(file, tensor);
        } catch (error) {
          expect(error).toBeInstanceOf(DriverError);
        }
      }),
      { numRuns: 500 },
    );
  });

  test("counts that the file cannot hold are refused before anything is allocated", async () => {
    using dir = tempDir();
    const file = dir.file("x.gguf");
    const header = (n_tensors: bigint, n_values: bigint, rest: string) => {
      const counts = Buffer.alloc(16);
      counts.writeBigUInt64LE(n_tensors);
      counts.writeBigUInt64LE(n_values, 8);
      writeFileSync(
        file,
        Buffer.concat([Buffer.from("GGUF\x03\x00\x00\x00", "latin1"), counts, Buffer.from(rest, "hex")]),
      );
      return failure(() => readGguf(file));
    };
    expect((await header(1n << 40n, 0n, "")).message).toContain("expected a tensor count within the 0 bytes left");
    expect((await header(0n, (1n << 63n) + 1n, "")).message).toContain("expected a number below 2^53");
    const array_of_2_pow_40 = `${"0100000000000000"}61${"09000000"}${"04000000"}${"0000000000010000"}`;
    expect((await header(0n, 1n, array_of_2_pow_40)).message).toContain(
      "expected an array length within the 0 bytes left",
    );
  });
});

describe("writeGguf", () => {
  test("leaves neither the file nor its part when a tensor is too short", async () => {
    using dir = tempDir();
    const file = dir.file("x.gguf");
    const tensor: GgufTensor = { name: "t", type: "F32", ne: [2, 3], chunks: () => [new Uint8Array(20)] };
    const error = await failure(() => writeGguf(file, new Map(), [tensor]));
    expect(error.message).toMatchInlineSnapshot(`"Cannot write t: expected 24 bytes (F32 [2, 3]), got 20"`);
    expect(readdirSync(dir.path)).toEqual([]);
  });

  test("keeps the file that was there when writing fails", async () => {
    using dir = tempDir();
    const file = dir.file("x.gguf");
    const { written } = await small(file);
    const failing: GgufTensor = {
      ...{ name: "t", type: "F32", ne: [1] },
      chunks: () => {
        throw new DriverError("ADAPTER_INVALID", "no");
      },
    };
    expect((await failure(() => writeGguf(file, new Map(), [failing]))).code).toBe("ADAPTER_INVALID");
    expect(readFileSync(file).length).toBe(written.bytes);
    expect(existsSync(`${file}.part`)).toBe(false);
  });
});

test("writes and reads a vocabulary of Qwen's size", async () => {
  using dir = tempDir();
  const file = `${dir.path}/vocabulary.gguf`;
  const value = Array.from({ length: 151_936 }, (_, i) => `token ${i}`);
  await writeGguf(file, new Map([["tokens", { type: "array", of: "string", value }]]), []);
  expect(readGguf(file).metadata.get("tokens")?.value).toEqual(value);
});
