const MASK = (1n << 64n) - 1n;
/** Multipliers and key increments. Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", Philox4x64. */
const MULTIPLIERS = [0xd2e7470ee14c6c93n, 0xca5a826395121157n] as const;
const WEYL = [0x9e3779b97f4a7c15n, 0xbb67ae8584caa73bn] as const;
const ROUNDS = 10;

type Block = [bigint, bigint, bigint, bigint];

/** Four words of 64 random bits: Philox4x64-10 of a counter under a key of two words. */
function philox(counter: bigint, key: readonly [bigint, bigint]): Block {
  let [a, b, c, d]: Block = [counter & MASK, counter >> 64n, 0n, 0n];
  let [k0, k1] = key;
  for (let round = 0; round < ROUNDS; round++) {
    const [first, second] = [MULTIPLIERS[0] * a, MULTIPLIERS[1] * c];
    [a, b, c, d] = [(second >> 64n) ^ b ^ k0, second & MASK, (first >> 64n) ^ d ^ k1, first & MASK];
    [k0, k1] = [(k0 + WEYL[0]) & MASK, (k1 + WEYL[1]) & MASK];
  }
  return [a, b, c, d];
}

/** The first `n` words that `numpy.random.Philox(key).random_raw` gives: its counter is raised before each block. */
export function philoxRaw(key: readonly [bigint, bigint], n: number): bigint[] {
  const blocks = Array.from({ length: Math.ceil(n / 4) }, (_, index) => philox(BigInt(index) + 1n, key));
  return blocks.flat().slice(0, n);
}

/** Sets the stream of the split apart from those of the epochs, which count from 0. */
const SPLIT_STREAM = 1n << 63n;

/**
 * Indices of the rows that `test_size` holds out: those with the lowest random bits, a pure function of its arguments. The
 * twin of `held_out_indices` in the bridge.
 */
export function heldOutRows(seed: number, n_rows: number, test_size: number): Set<number> {
  const wanted = Math.ceil(test_size * n_rows);
  if (wanted === 0) return new Set();
  const bits = philoxRaw([BigInt(seed), SPLIT_STREAM], n_rows);
  const order = bits.map((_, index) => index);
  order.sort((i, j) =>
    (bits[i] as bigint) < (bits[j] as bigint) ? -1 : (bits[i] as bigint) > (bits[j] as bigint) ? 1 : i - j,
  );
  return new Set(order.slice(0, wanted));
}
