import type { ParityMetrics } from "./metrics.ts";

export type ParityKind = "strict" | "as_served";

export interface ParityJudgement {
  verdict: "pass" | "refuse" | "undecidable";
  /** Why it is no pass; for a pass, what it does not show. */
  reasons: string[];
  /** The nearest mistake that would look like this. */
  explanation?: string;
}

interface Bounds {
  /** KL(PEFT || llama.cpp) of the bases, nats a position. */
  base_kl: number;
  /** Largest difference of a base log-probability, nats. */
  base_max: number;
  /** ||d_llama - d_peft|| / ||d_peft||, while the noise of the engines is below it. */
  rel: number;
  /** KL(PEFT || llama.cpp) with the adapter, nats a position; and as a share of the adapter's own effect. */
  kl: number;
  kl_share: number;
  /** The residual may be this many times the engines' noise, which enters it twice. */
  noise_multiple: number;
  /** Below this many times the noise the effect of an adapter cannot be told from another one's. */
  min_effect: number;
}

/**
 * Right adapters, worst value: 2 random models of 3 layers x 15 adapters (r 1, 8, 32, rsLoRA or not, one layer, all-linear,
 * patterns), and 8 checkpoints of a rank-1 run on nano, 451 positions. The residual of the faintest ones is all noise.
 *
 * |                                 | base_kl | base_max | rel     | kl      | residual / noise |
 * | random, F32 weights, F32 KV     | 3.7e-13 | 5.2e-6   | 1.5e-5  | 4.0e-13 | 1.3              |
 * | nano,   F32 weights, F32 KV     | 1.8e-12 | 3.6e-5   | 3.1e-4  | 2.0e-12 | 1.2              |
 * | random, F32 weights, F16 KV, FA | 6.8e-7  | 1.0e-2   | 2.3e-2  | 8.0e-7  | 1.6              |
 * | random, BF16 weights, F16 KV, FA| 5.6e-5  | 8.8e-2   | 1.2e-1  | 6.1e-5  | 1.4              |
 * | nano,   BF16 weights, F16 KV, FA| 4.2e-5  | 9.3e-2   | 1.0     | 4.4e-5  | 1.1              |
 *
 * The mistakes to be caught: scale x 1.001 has rel 1e-3, another layer or adapter 1.1 and more, no adapter 1.0, a scale
 * that lacks sqrt(r) .64 to .93, another template a KL of .9 and more.
 *
 * Source: measured with `test/parity/make_cases.py` and the demo experiment; the mistakes with 82 adapters over two bases
 * of 12 million parameters. `base_kl` and `base_max` leave room for models a thousand times larger.
 */
const BOUNDS: Readonly<Record<ParityKind, Bounds>> = {
  strict: { base_kl: 1e-9, base_max: 1e-3, rel: 5e-4, kl: 1e-9, kl_share: 1e-6, noise_multiple: 4, min_effect: 100 },
  // Half precision has single log-probabilities in the far tail that are off by any amount: no bound on the maximum.
  as_served: { base_kl: 1e-3, base_max: Infinity, rel: 0.05, kl: 1e-3, kl_share: 0, noise_multiple: 3, min_effect: 0 },
};

/** Ranks whose square root, forgotten or applied twice, is looked for when a scale is wrong. */
const RANKS = [2, 4, 8, 16, 32, 64, 128, 256] as const;
/** How near a ratio must come to sqrt(r) to be called by that name. An effect is not quite linear in its scale. */
const RANK_TOLERANCE = 0.05;

/**
 * Whether llama.cpp applies what PEFT trained. It fails closed: what cannot be told is `undecidable`, never `pass`.
 *
 * An adapter whose B is zero does nothing by right, which only its weights can say: `b_is_zero`. For the base itself
 * it is true too.
 */
export function judgeParity(
  metrics: ParityMetrics,
  kind: ParityKind,
  { b_is_zero }: { b_is_zero: boolean },
): ParityJudgement {
  const bounds = BOUNDS[kind];
  const baseReasons = judgeBase(metrics, bounds);
  if (baseReasons.length > 0) return { verdict: "refuse", reasons: baseReasons, explanation: explainBase(metrics) };
  if (b_is_zero) return judgeZero(metrics);
  if (metrics.rel === undefined || metrics.norm_ratio === undefined) return judgeNoEffect(metrics);
  return judgeAdapter(metrics, metrics.rel, metrics.norm_ratio, bounds);
}

function judgeBase(metrics: ParityMetrics, bounds: Bounds): string[] {
  return [
    ...above("KL of the bases", metrics.base_kl_mean, bounds.base_kl),
    ...above("largest difference of the bases", metrics.base_max_abs, bounds.base_max),
  ];
}

/** Both sides must do nothing, up to the noise of the engines. */
function judgeZero(metrics: ParityMetrics): ParityJudgement {
  const reasons = [
    ...above("effect of a zero adapter in PEFT", metrics.effect_rms, metrics.base_rms),
    ...above("effect of a zero adapter in llama.cpp", metrics.llama_effect_rms, metrics.base_rms),
  ];
  if (reasons.length === 0) return { verdict: "pass", reasons };
  return { verdict: "refuse", reasons, explanation: "as if another adapter had been converted or loaded" };
}

/** PEFT's adapter is not zero and yet did nothing at all. */
function judgeNoEffect(metrics: ParityMetrics): ParityJudgement {
  const reasons = ["PEFT's adapter changes no log-probability although its B is not zero"];
  if (metrics.llama_effect_rms <= metrics.base_rms) return { verdict: "undecidable", reasons };
  return { verdict: "refuse", reasons, explanation: "as if PEFT had not applied the adapter" };
}

function judgeAdapter(metrics: ParityMetrics, rel: number, ratio: number, bounds: Bounds): ParityJudgement {
  const noise = metrics.base_rms / metrics.effect_rms;
  const relBound = Math.max(bounds.rel, bounds.noise_multiple * noise);
  const reasons = [
    ...above("relative residual", rel, relBound),
    ...above("distance of the norm ratio from 1", Math.abs(ratio - 1), relBound),
    ...above("KL with the adapter", metrics.kl_mean, Math.max(bounds.kl, bounds.kl_share * metrics.effect_kl_mean)),
  ];
  if (reasons.length > 0) return { verdict: "refuse", reasons, explanation: explainAdapter(metrics, ratio) };
  if (noise * bounds.min_effect > 1) return { verdict: "undecidable", reasons: [tooFaint(metrics, bounds.min_effect)] };
  return { verdict: "pass", reasons: relBound >= 1 ? [tooFaint(metrics, 1)] : [] };
}

function tooFaint(metrics: ParityMetrics, multiple: number): string {
  const { effect_rms, base_rms } = metrics;
  return `the adapter's effect (RMS ${short(effect_rms)}) is too faint to be told from another's: expected at least ${short(multiple * base_rms)}, ${multiple} x the engines' own noise`;
}

function above(what: string, value: number, bound: number): string[] {
  return value <= bound ? [] : [`${what}: expected at most ${short(bound)}, got ${short(value)}`];
}

function explainBase({ base_kl_mean }: ParityMetrics): string {
  // Half precision was never seen above 1e-3, another template or base never below .9.
  return base_kl_mean > 0.1
    ? "as if another base model, tokenizer or chat template"
    : "as if the weights or the KV cache had another precision";
}

/** Thresholds lie between the clusters measured: wrong layer or adapter cosine -.07 to .41, wrong scale .36 to 1. */
function explainAdapter({ cosine = 0 }: ParityMetrics, ratio: number): string {
  if (ratio < 0.01) return "as if not applied";
  if (cosine > 0.5) return explainScale(ratio);
  return ratio < 0.5 ? "as if scaled down, or as if another adapter or layer" : "as if another adapter or layer";
}

function explainScale(ratio: number): string {
  if (Math.abs(ratio - 1) < RANK_TOLERANCE) return `as if scaled by ${short(ratio)}, or as if one module differed`;
  const down = RANKS.find((r) => Math.abs(ratio * Math.sqrt(r) - 1) < RANK_TOLERANCE);
  if (down !== undefined)
    return `as if scaled by 1/sqrt(${down}) = ${short(1 / Math.sqrt(down))}: the norm ratio is ${short(ratio)}`;
  const up = RANKS.find((r) => Math.abs(ratio / Math.sqrt(r) - 1) < RANK_TOLERANCE);
  if (up !== undefined)
    return `as if scaled by sqrt(${up}) = ${short(Math.sqrt(up))}: the norm ratio is ${short(ratio)}`;
  return `as if scaled by ${short(ratio)}`;
}

function short(value: number): string {
  return String(Number(value.toPrecision(3)));
}
