import fc from "fast-check";
import { expect, test } from "vitest";
import { heldOutRows, philoxRaw } from "../../../src/formats/held-out.ts";

test("random bits are those of numpy.random.Philox", () => {
  // np.random.Philox(key=np.array([3, 2**63], dtype=np.uint64)).random_raw(6), numpy 2
  expect(philoxRaw([3n, 1n << 63n], 6).map(String)).toEqual([
    ...["10168997527998184809", "4718880642258198486", "10039405366059178288", "2270221539283456209"],
    ...["17792796104845069880", "9065050444449284885"],
  ]);
});

test("the rows of the bridge are held out", () => {
  // sorted(split_rows(400, 0.1, seed=0)[1]) of vivarium_bridge.dataset
  expect([...heldOutRows(0, 400, 0.1)].sort((a, b) => a - b)).toEqual([
    ...[2, 17, 25, 27, 32, 44, 47, 51, 73, 96, 100, 102, 109, 116, 134, 146, 154, 163, 166, 168, 191, 203, 228, 234],
    ...[236, 244, 251, 256, 263, 270, 283, 291, 296, 300, 315, 316, 360, 366, 375, 377],
  ]);
});

test("as many as asked for, rounded up, and never a row twice", () => {
  fc.assert(
    fc.property(
      fc.nat(2 ** 31),
      fc.integer({ min: 1, max: 300 }),
      fc.double({ min: 0, max: 0.99, noNaN: true }),
      (seed, n, size) => {
        const rows = heldOutRows(seed, n, size);
        expect(rows.size).toBe(Math.ceil(size * n));
        for (const row of rows) expect(row).toBeLessThan(n);
      },
    ),
  );
});
