import fc from "fast-check";
import { expect, test } from "vitest";
import { fromFloat32, toFloat32 } from "../../../src/formats/floats.ts";

const bytesOf = (bits: Uint16Array) => new Uint8Array(bits.buffer);
const ALL_BITS = Uint16Array.from({ length: 65_536 }, (_, i) => i);

test.each(["F16", "BF16"] as const)("every %s survives float32 and back", (dtype) => {
  const values = toFloat32(bytesOf(ALL_BITS), dtype);
  const again = toFloat32(fromFloat32(values, dtype), dtype);
  for (let i = 0; i < values.length; i++)
    if (!Object.is(values[i], again[i])) expect([i, again[i]]).toEqual([i, values[i]]);
});

test.each(["F16", "BF16"] as const)("float32 becomes the nearest %s, the even one in a tie", (dtype) => {
  const grid = [...toFloat32(bytesOf(ALL_BITS), dtype)].map((value, bits) => ({ value, bits }));
  const finite = grid.filter(({ value, bits }) => Number.isFinite(value) && bits < 0x8000);
  fc.assert(
    fc.property(fc.nat(finite.length - 2), fc.double({ min: 0, max: 1, noNaN: true }), (i, share) => {
      const [low, high] = [finite[i], finite[i + 1]] as [(typeof finite)[0], (typeof finite)[0]];
      const value = Math.fround(low.value + share * (high.value - low.value));
      const [got] = toFloat32(fromFloat32(Float32Array.of(value), dtype), dtype);
      const [down, up] = [value - low.value, high.value - value];
      const expected = down < up || (down === up && low.bits % 2 === 0) ? low.value : high.value;
      expect(got).toBe(expected);
    }),
  );
});

test("NaN stays NaN and what is too large becomes infinity", () => {
  const nan_with_low_bits_only = new Float32Array(Uint32Array.of(0x7f800001, 0xffffffff).buffer);
  for (const dtype of ["F16", "BF16"] as const) {
    expect([...toFloat32(fromFloat32(nan_with_low_bits_only, dtype), dtype)]).toEqual([Number.NaN, Number.NaN]);
  }
  expect([...toFloat32(fromFloat32(Float32Array.of(65_519, 65_520, -1e30), "F16"), "F16")]).toEqual([
    65_504,
    Number.POSITIVE_INFINITY,
    Number.NEGATIVE_INFINITY,
  ]);
});
