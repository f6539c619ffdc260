import type { Summary, SummaryModel } from "../../records/summary.ts";

/**
 * Colours that stay apart under the common kinds of colour blindness, without the yellow that vanishes on white.
 *
 * Source: Okabe & Ito, "Color universal design" (2008).
 */
const ORGANISM_COLORS = ["#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"] as const;
const CONTROL_COLOR = "#0072b2";
const BASE_COLOR = "#767676";

/** Symbols tell models apart where colour cannot: in print, and past the last colour. */
const ORGANISM_SHAPES = [
  "diamond",
  "triangle-up",
  "cross",
  "triangle-down",
  "triangle-right",
  "triangle-left",
] as const;

/** Colour of text, axes and grid in a chart. The page replaces it by its own text colour. */
export const INK = "#222222";
export const PAPER = "#ffffff";

/** One stack for page and charts: no font is fetched, and every system has one of these. */
export const FONT = "Helvetica Neue, Helvetica, Arial, Liberation Sans, DejaVu Sans, sans-serif";

/** Width of a whole chart in px, labels included. */
export const CHART_WIDTH = 860;

/** Settings of every chart. */
export const CHART_CONFIG = {
  font: FONT,
  background: PAPER,
  view: { stroke: null },
  axis: {
    labelColor: INK,
    titleColor: INK,
    titleFontWeight: "normal",
    titleFontSize: 12,
    labelFontSize: 12,
    labelLimit: 320,
    labelFlush: false,
    domainColor: INK,
    domainOpacity: 0.5,
    tickColor: INK,
    tickOpacity: 0.5,
    gridColor: INK,
    gridOpacity: 0.12,
  },
  title: { color: INK, fontSize: 13, fontWeight: "bold", anchor: "start", offset: 8 },
  legend: {
    symbolOpacity: 1,
    labelColor: INK,
    titleColor: INK,
    labelFontSize: 12,
    titleFontSize: 12,
    titleFontWeight: "normal",
    labelLimit: 320,
  },
  text: { fill: INK, fontSize: 12 },
} as const;

export interface ModelStyle {
  label: string;
  color: string;
  shape: string;
}

/** The models that are shown by themselves, in report order. */
export const shownModels = (summary: Summary): SummaryModel[] => summary.models.filter((model) => !model.is_curve_only);

/** Colour and symbol of each shown model; the same in every chart of a report. */
export function modelStyles(summary: Summary): Map<string, ModelStyle> {
  const organisms = shownModels(summary).filter((model) => model.role === "organism");
  return new Map(
    shownModels(summary).map(({ id, label, role }): [string, ModelStyle] => {
      if (role === "base") return [id, { label, color: BASE_COLOR, shape: "circle" }];
      if (role === "control") return [id, { label, color: CONTROL_COLOR, shape: "square" }];
      const index = organisms.findIndex((model) => model.id === id);
      const color = ORGANISM_COLORS[index % ORGANISM_COLORS.length] ?? INK;
      return [id, { label, color, shape: ORGANISM_SHAPES[index % ORGANISM_SHAPES.length] ?? "diamond" }];
    }),
  );
}

/** Colour of a run that has no shown model of its own: the first that no shown model has. */
export function spareColor(used: ReadonlySet<string>): string {
  return ORGANISM_COLORS.find((color) => !used.has(color)) ?? INK;
}
