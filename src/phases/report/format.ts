import type { ContrastEstimate, Estimate, Summary } from "../../records/summary.ts";

/** How numbers are written for people. A missing one is always these words. */
export const NO_DATA_TEXT = "no data";

const NBSP = "\u00a0";
const MINUS = "\u2212";

/** Text without the control characters that neither HTML nor SVG can hold; they become U+FFFD. */
export const printable = (text: string) => text.replace(/(?![\t\n\r])\p{Cc}/gu, "\ufffd");

/** `41.2 %`. */
export const percent = (fraction: number, digits = 1) => `${(100 * fraction).toFixed(digits)}${NBSP}%`;

/** Whole percent from 10 % on, one decimal below: what a sentence can carry. */
const roughDigits = (fraction: number) => (fraction >= 0.0995 ? 0 : 1);
export const roughPercent = (fraction: number) => percent(fraction, roughDigits(fraction));

/** `41.2 % [30.1, 53.4]`, or "no data". */
export function estimateText(estimate: Estimate): string {
  if (estimate.kind === "no_data") return NO_DATA_TEXT;
  return `${percent(estimate.rate)} [${(100 * estimate.ci_low).toFixed(1)}, ${(100 * estimate.ci_high).toFixed(1)}]`;
}

/** `41 % [30–53]`, or "no data". */
export function roughEstimate(estimate: Estimate): string {
  if (estimate.kind === "no_data") return NO_DATA_TEXT;
  const digits = roughDigits(estimate.rate);
  const [low, high] = [estimate.ci_low, estimate.ci_high].map((end) => (100 * end).toFixed(digits));
  return `${percent(estimate.rate, digits)} [${low}–${high}]`;
}

const signed = (fraction: number) => {
  const text = Math.abs(100 * fraction).toFixed(1);
  if (Number(text) === 0) return text;
  return fraction < 0 ? `${MINUS}${text}` : `+${text}`;
};

/** `+40.9 [+29.8, +52.0]` in percentage points, or "no data". */
export function contrastText(contrast: ContrastEstimate): string {
  if (contrast.kind === "no_data") return NO_DATA_TEXT;
  return `${signed(contrast.difference)} [${signed(contrast.ci_low)}, ${signed(contrast.ci_high)}]`;
}

/** `−0.04`. */
export const decimal = (value: number) => value.toFixed(2).replace("-", MINUS);

/** `0.031`, `< 0.001`. */
export const probability = (p: number) => (p < 0.001 ? `<${NBSP}0.001` : p.toFixed(3));

/** A measured quantity with four significant digits, without a trailing `e+0`. */
export const quantity = (value: number) => String(Number(value.toPrecision(4)));

/** `refusal 2, timeout 1`, or an empty text where every row was scored. */
export function reasonsText(counts: Readonly<Record<string, number>>): string {
  return Object.entries(counts)
    .filter(([, count]) => count > 0)
    .map(([reason, count]) => `${reason} ${count}`)
    .join(", ");
}

/** The conditions that make a question part of a group, in words. */
export function groupText({ question_set, where, where_not }: Summary["groups"][number]): string {
  const tags = [
    ...Object.entries(where).map(([tag, value]) => `${tag} is ${value}`),
    ...Object.entries(where_not).map(([tag, value]) => `${tag} is not ${value}`),
  ];
  return tags.length === 0 ? question_set : `${question_set} where ${tags.join(" and ")}`;
}
