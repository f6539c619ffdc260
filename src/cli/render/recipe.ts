import type { Recipe } from "../../records/recipe.ts";
import { RECIPE_GROUPS } from "../../records/recipe-names.ts";

/** One value of a recipe: as resolved, and where it comes from. */
export interface ShownValue {
  name: keyof Recipe;
  value: unknown;
  /** As written, where resolving changed it: `mid`, `10%`. */
  written?: unknown;
  source: string;
}

const MOST_LISTED = 12;
const WIDEST_VALUE = 34;

/** Small numbers as people write rates: 2e-5. */
const showNumber = (value: number): string =>
  value !== 0 && Math.abs(value) < 1e-3 ? value.toExponential() : String(value);

/** A value as YAML would have it, on one line; a long list by its ends. */
export function showValue(value: unknown): string {
  if (Array.isArray(value)) {
    if (value.length === 0) return "none";
    if (value.length <= MOST_LISTED) return value.join(", ");
    return `${value.slice(0, MOST_LISTED - 2).join(", ")}, ..., ${value.at(-1)} (${value.length})`;
  }
  if (value === null) return "none";
  if (typeof value === "number") return showNumber(value);
  if (typeof value !== "object") return String(value);
  const entries = Object.entries(value);
  return entries.length === 0 ? "none" : entries.map(([key, entry]) => `${key}: ${entry}`).join(", ");
}

/** PEFT's null for the layers means every layer; any other null means that there is none. */
const shownText = ({ name, value }: ShownValue): string =>
  name === "layers_to_transform" && value === null ? "all" : showValue(value);

/** Groups of names, values and sources in columns; a value wider than its column pushes its source to the next line. */
export function renderValues(values: readonly ShownValue[]): string[] {
  const shown = values.map((value) => ({ ...value, text: withWritten(value) }));
  const name_width = Math.max(...shown.map(({ name }) => name.length));
  const texts = shown.map(({ text }) => text.length).filter((length) => length <= WIDEST_VALUE);
  const width = Math.max(0, ...texts);
  const line = ({ name, text, source }: (typeof shown)[number]): string[] => {
    const start = `  ${name.padEnd(name_width)}  `;
    if (text.length <= width) return [`${start}${text.padEnd(width)}  ${source}`];
    return [start + text, " ".repeat(start.length + width + 2) + source];
  };
  return Object.entries(RECIPE_GROUPS).flatMap(([group, names]) => [
    group,
    ...shown.filter(({ name }) => name in names).flatMap(line),
  ]);
}

function withWritten(value: ShownValue): string {
  const text = shownText(value);
  const written = value.written === undefined ? "" : showValue(value.written);
  return written === "" || written === text ? text : `${text} (${written})`;
}
