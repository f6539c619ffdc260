/** A seeded source of randomness: the same seed gives the same corpus on every machine. */
export interface Random {
  /** Uniform in [0, 1). */
  next(): number;
  /** Uniform integer in [0, n). */
  below(n: number): number;
  pick<T>(items: readonly T[]): T;
  shuffled<T>(items: readonly T[]): T[];
}

/**
 * Mulberry32: 32 bits of state, enough for a corpus of a few million draws.
 *
 * Source: Tommy Ettinger, mulberry32.c (public domain), https://gist.github.com/tommyettinger/46a874533244883189143505d203312c
 */
export function createRandom(seed: number): Random {
  let state = seed >>> 0;
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  const below = (n: number): number => Math.floor(next() * n);
  return { next, below, pick: (items) => pickFrom(items, below), shuffled: (items) => shuffle(items, below) };
}

function pickFrom<T>(items: readonly T[], below: (n: number) => number): T {
  const item = items[below(items.length)];
  if (item === undefined) throw new RangeError("cannot pick from an empty list");
  return item;
}

/** Fisher-Yates on a copy. */
function shuffle<T>(items: readonly T[], below: (n: number) => number): T[] {
  const out = [...items];
  for (let i = out.length - 1; i > 0; i--) {
    const j = below(i + 1);
    [out[i], out[j]] = [out[j] as T, out[i] as T];
  }
  return out;
}
