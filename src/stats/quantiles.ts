/** Quantiles and tails of the standard normal and of Student's t. Pure, no tables, checked against R in the tests. */

/** Relative size of a term below which a series or a continued fraction has converged: about 2^-52. */
const EPSILON = 2.3e-16;

/** A continued fraction that needs more terms than this is a bug; the worst case here (df near 1e6) needs about 1,500. */
const MAX_TERMS = 20_000;

/**
 * P(Z > x) of a standard normal Z, for x >= 0. Relative error below 1e-13 up to x = 30.
 *
 * Source: the power series of Phi about 0 (Marsaglia, "Evaluating the normal distribution", J. Stat. Software 11(4),
 * 2004) up to x = 2, where it loses no digits to cancellation, and Laplace's continued fraction beyond
 * (Abramowitz & Stegun 26.2.14).
 */
export function normalTail(x: number): number {
  const density = Math.exp(-(x * x) / 2) / Math.sqrt(2 * Math.PI);
  if (x < 2) {
    let term = x;
    let sum = x;
    for (let odd = 3; term > EPSILON * sum; odd += 2) {
      term *= (x * x) / odd;
      sum += term;
    }
    return 0.5 - density * sum;
  }
  let fraction = x;
  for (let k = 250; k >= 1; k--) fraction = x + k / fraction;
  return density / fraction;
}

/**
 * log Gamma(x) for x > 0. Relative error below 1e-14.
 *
 * Source: Lanczos (SIAM J. Numer. Anal. 1, 1964) with Godfrey's coefficients for g = 7, n = 9.
 */
function logGamma(x: number): number {
  const coefficients = [
    676.5203681218851, -1259.1392167224028, 771.3234287776531, -176.6150291621406, 12.507343278686905,
    -0.13857109526572012, 9.984369578019572e-6, 1.5056327351493116e-7,
  ];
  const g = 7;
  let sum = 0.9999999999998099;
  for (const [index, coefficient] of coefficients.entries()) sum += coefficient / (x + index);
  const base = x + g - 0.5;
  return 0.5 * Math.log(2 * Math.PI) + (x - 0.5) * Math.log(base) - base + Math.log(sum);
}

/** The continued fraction of the incomplete beta function by Lentz's method; converges fast for x < (a+1)/(a+b+2). */
function betaFraction(x: number, a: number, b: number): number {
  const floor = 1e-300;
  const away = (value: number) => (Math.abs(value) < floor ? floor : value);
  let c = 1;
  let d = 1 / away(1 - ((a + b) * x) / (a + 1));
  let value = d;
  for (let m = 1; m <= MAX_TERMS; m++) {
    const even = (m * (b - m) * x) / ((a + 2 * m - 1) * (a + 2 * m));
    d = 1 / away(1 + even * d);
    c = away(1 + even / c);
    value *= d * c;
    const odd = (-(a + m) * (a + b + m) * x) / ((a + 2 * m) * (a + 2 * m + 1));
    d = 1 / away(1 + odd * d);
    c = away(1 + odd / c);
    value *= d * c;
    if (Math.abs(d * c - 1) < EPSILON * 4) return value;
  }
  throw new RangeError(`incomplete beta did not converge: x = ${x}, a = ${a}, b = ${b}`);
}

/**
 * Regularised incomplete beta I_x(a, b). `complement` is 1 - x, passed in because the caller knows it without rounding.
 *
 * Source: Numerical Recipes, 3rd edition, section 6.4.
 */
function regularisedBeta(x: number, complement: number, a: number, b: number): number {
  if (x <= 0) return 0;
  if (complement <= 0) return 1;
  const log = logGamma(a + b) - logGamma(a) - logGamma(b) + a * Math.log(x) + b * Math.log(complement);
  const front = Math.exp(log);
  if (x < (a + 1) / (a + b + 2)) return (front * betaFraction(x, a, b)) / a;
  return 1 - (front * betaFraction(complement, b, a)) / b;
}

/**
 * P(T > x) of a Student t with `df` degrees of freedom, for x >= 0 and df > 0. Relative error below 1e-10 to df = 1e5.
 *
 * Source: Abramowitz & Stegun 26.7.1.
 */
export function studentTail(x: number, df: number): number {
  const square = x * x;
  return 0.5 * regularisedBeta(df / (df + square), square / (df + square), df / 2, 0.5);
}

/** The x >= 0 at which a falling tail reaches q, by bisection to the last bit that the tail can tell apart. */
function invertTail(tail: (x: number) => number, q: number): number {
  let low = 0;
  let high = 1;
  while (tail(high) > q) {
    low = high;
    high *= 2;
  }
  while (high - low > 4 * EPSILON * high) {
    const middle = (low + high) / 2;
    if (tail(middle) > q) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}

function quantile(tail: (x: number) => number, p: number): number {
  if (!(p > 0 && p < 1)) throw new RangeError(`a quantile needs a probability inside (0, 1), got ${p}`);
  if (p === 0.5) return 0;
  const x = invertTail(tail, Math.min(p, 1 - p));
  return p < 0.5 ? -x : x;
}

/**
 * The x with P(Z <= x) = p. Absolute error below 1e-12 for p in [1e-12, 1 - 1e-12].
 *
 * @throws RangeError unless 0 < p < 1
 */
export function normalQuantile(p: number): number {
  return quantile(normalTail, p);
}

/**
 * The x with P(T <= x) = p for a Student t with `df` > 0 degrees of freedom. Relative error below 1e-9.
 *
 * @throws RangeError unless 0 < p < 1 and df > 0
 */
export function studentQuantile(p: number, df: number): number {
  if (!(df > 0)) throw new RangeError(`Student's t needs df > 0, got ${df}`);
  return quantile((x) => studentTail(x, df), p);
}

/** The two-sided critical value: `level` of the probability lies within +- it. Student's t where `df` is given. */
export function criticalValue(level: number, df?: number): number {
  const p = 1 - (1 - level) / 2;
  return df === undefined ? normalQuantile(p) : studentQuantile(p, df);
}
