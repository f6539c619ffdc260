import { readFileSync, writeFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { DriverError } from "../../../src/errors.ts";
import {
  openSafetensors,
  readTensorBytes,
  readTensorF32,
  type TensorData,
  type TensorRef,
  writeSafetensors,
} from "../../../src/formats/safetensors.ts";
import { f32, failure, tempDir, withoutDir } from "./fixtures.ts";

const tensors = fc.dictionary(
  fc.string({ minLength: 1, maxLength: 8 }).filter((name) => name !== "__metadata__"),
  fc.tuple(fc.constantFrom("F32", "F16", "BF16"), fc.array(fc.nat(4), { maxLength: 3 })).map(([dtype, shape]) => {
    const bytes = shape.reduce((product, n) => product * n, dtype === "F32" ? 4 : 2);
    return { dtype, shape, data: Uint8Array.from({ length: bytes }, (_, i) => (i * 7) % 60) } satisfies TensorData;
  }),
  { maxKeys: 5 },
);

/** A file with the given header and `data_bytes` zeros. */
function rawFile(path: string, header: string, data_bytes: number): string {
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(Buffer.byteLength(header)));
  writeFileSync(path, Buffer.concat([length, Buffer.from(header), Buffer.alloc(data_bytes)]));
  return path;
}

describe("openSafetensors", () => {
  test("finds what writeSafetensors wrote, byte for byte", async () => {
    using dir = tempDir();
    const file = dir.file("x.safetensors");
    await fc.assert(
      fc.asyncProperty(tensors, fc.integer({ min: 1, max: 3 }), async (written, chunk) => {
        writeSafetensors(file, written);
        const opened = openSafetensors(file).tensors;
        expect([...opened.keys()].sort()).toEqual(Object.keys(written).sort());
        for (const ref of opened.values()) {
          const original = written[ref.name] as TensorData;
          expect([ref.dtype, ref.shape]).toEqual([original.dtype, original.shape]);
          const chunks: Uint8Array[] = [];
          for await (const part of readTensorBytes(file, ref, 8 * chunk)) chunks.push(part);
          expect(Buffer.concat(chunks)).toEqual(Buffer.from(original.data));
        }
      }),
      { numRuns: 50 },
    );
  });

  test("refuses the file cut at any byte", async () => {
    using dir = tempDir();
    const file = dir.file("x.safetensors");
    writeSafetensors(file, { a: f32([2, 3]), b: f32([4]) });
    const whole = readFileSync(file);
    for (let n = 0; n < whole.length; n++) {
      writeFileSync(file, whole.subarray(0, n));
      expect((await failure(() => openSafetensors(file))).code).toBe("FORMAT_INVALID");
    }
  });

  test("opens or refuses a file with any byte changed, and never breaks otherwise", () => {
    using dir = tempDir();
    const file = dir.file("x.safetensors");
    writeSafetensors(file, { a: f32([2, 3]), b: f32([4]) });
    const whole = readFileSync(file);
    fc.assert(
      fc.property(fc.nat(whole.length - 1), fc.nat(255), (at, byte) => {
        const changed = Buffer.from(whole);
        changed[at] = byte;
        writeFileSync(file, changed);
        try {
          openSafetensors(file);
        } catch (error) {
          expect(error).toBeInstanceOf(DriverError);
        }
      }),
      { numRuns: 300 },
    );
  });

  test.each([
    ["gap", '{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}', 8, "expected a to start at byte 62, got 66"],
    [
      "overlap",
      '{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}',
      3,
      "expected b to start at byte 115, got 114",
    ],
    ["size", '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}', 4, "expected 8 bytes for a (F32 [2]), got 4"],
    ["dtype", '{"a":{"dtype":"Q4","shape":[2],"data_offsets":[0,4]}}', 4, 'expected a known dtype for a, got "Q4"'],
    ["inherited dtype", '{"a":{"dtype":"toString","shape":[],"data_offsets":[0,0]}}', 0, "expected a known dtype"],
    ["negative", '{"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,0]}}', 0, "expected a to have dtype, shape"],
    ["absurd shape", '{"a":{"dtype":"U8","shape":[1e15,1e15],"data_offsets":[0,4]}}', 4, "expected 1e+30 bytes"],
    ["trailing bytes", "{}", 5, "expected 10 bytes, got 15"],
    ["no object", "[]", 0, "expected a JSON object"],
    ["metadata", '{"__metadata__":{"a":1}}', 0, "expected __metadata__ to map strings to strings"],
  ])("refuses a header with a fault: %s", async (_name, header, data_bytes, message) => {
    using dir = tempDir();
    const error = await failure(() => openSafetensors(rawFile(dir.file("x.safetensors"), header, data_bytes)));
    expect(error.code).toBe("FORMAT_INVALID");
    expect(error.message).toContain(message);
  });

  test("refuses an absurd header length without allocating it", async () => {
    using dir = tempDir();
    writeFileSync(dir.file("x"), Buffer.from("ffffffffffffff7f7b7d", "hex"));
    const error = await failure(() => openSafetensors(dir.file("x")));
    expect(withoutDir(error.message, dir.path)).toMatchInlineSnapshot(
      `"DIR/x is not a valid safetensors file: expected a header of at most 2 bytes, got 9223372036854775807"`,
    );
  });
});

test("a folder, or nothing, is not a file", async () => {
  using dir = tempDir();
  const messages = [];
  for (const path of [dir.path, dir.file("gone")]) {
    const error = await failure(() => openSafetensors(path));
    expect(error.code).toBe("NOT_FOUND");
    messages.push(withoutDir(error.message, dir.path));
  }
  expect(messages).toMatchInlineSnapshot(`
    [
      "Cannot open DIR: expected a file, got a folder or a device",
      "Cannot open DIR/gone: ENOENT: no such file or directory, stat 'DIR/gone'",
    ]
  `);
});

describe("readTensorF32", () => {
  test("reads F32, F16 and BF16", () => {
    using dir = tempDir();
    const halves = (...bits: number[]) => new Uint8Array(Uint16Array.from(bits).buffer);
    writeSafetensors(dir.file("x"), {
      a: f32([2], (i) => i + 0.5),
      b: { dtype: "F16", shape: [3], data: halves(0x3c00, 0xc000, 0x0001) },
      c: { dtype: "BF16", shape: [2], data: halves(0x3f80, 0xc040) },
    });
    const opened = openSafetensors(dir.file("x"));
    const read = (name: string) => [...readTensorF32(opened.file, opened.tensors.get(name) as TensorRef)];
    expect(read("a")).toEqual([0.5, 1.5]);
    expect(read("b")).toEqual([1, -2, 2 ** -24]);
    expect(read("c")).toEqual([1, -3]);
  });

  test("refuses integers, which are listed all the same", async () => {
    using dir = tempDir();
    writeSafetensors(dir.file("x"), { a: { dtype: "I64", shape: [1], data: new Uint8Array(8) } });
    const opened = openSafetensors(dir.file("x"));
    const error = await failure(() => readTensorF32(opened.file, opened.tensors.get("a") as TensorRef));
    expect(error.message).toContain("expected a to be F32, F16 or BF16, got I64");
  });
});
