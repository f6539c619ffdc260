import * as vega from "vega";
import { compile, type TopLevelSpec } from "vega-lite";
import { printable } from "./format.ts";

/** A Vega-Lite specification as it is written to `*.vl.json`. */
export type ChartSpec = Record<string, unknown> & { $schema: string };

export const VEGA_LITE_SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json";

/**
 * Advance widths of the characters from space to tilde, in thousandths of the font size.
 *
 * Source: Adobe's metrics of Helvetica (Helvetica.afm), which Arial and Liberation Sans share.
 */
const ADVANCES = [
  278, 278, 355, 556, 556, 889, 667, 191, 333, 333, 389, 584, 278, 333, 278, 278, 556, 556, 556, 556, 556, 556, 556,
  556, 556, 556, 278, 278, 584, 584, 584, 556, 1015, 667, 667, 722, 722, 667, 611, 778, 722, 278, 500, 667, 556, 833,
  722, 778, 667, 778, 722, 667, 611, 722, 667, 944, 667, 667, 611, 278, 278, 278, 469, 556, 333, 556, 556, 500, 556,
  556, 278, 556, 556, 222, 222, 500, 222, 833, 556, 556, 556, 556, 333, 500, 278, 556, 500, 722, 500, 500, 500, 334,
  260, 334, 584,
];
const FIRST_CHARACTER = 32;
/** A character outside the table, e.g. a CJK one, is taken to be as wide as it is high. */
const OTHER_ADVANCE = 1000;
/** Room for the widest font of the stack (DejaVu Sans) and for bold: text may get too much space, never too little. */
const MARGIN = 1.14;

/** Width of a line of text in px, without a canvas or a font file. */
export function textWidth(text: string, font_size_px: number): number {
  let thousandths = 0;
  for (const character of text) {
    thousandths += ADVANCES[(character.codePointAt(0) ?? 0) - FIRST_CHARACTER] ?? OTHER_ADVANCE;
  }
  return (thousandths / 1000) * font_size_px * MARGIN;
}

/** Text that fits into a width: the middle is left out, because ids that share a start differ at their end. */
export function shorten(text: string, font_size_px: number, most_px: number): string {
  if (textWidth(text, font_size_px) <= most_px) return text;
  const characters = [...text];
  for (let kept = characters.length - 1; kept > 1; kept--) {
    const head = Math.ceil(kept / 2);
    const cut = `${characters.slice(0, head).join("")}…${characters.slice(characters.length - (kept - head)).join("")}`;
    if (textWidth(cut, font_size_px) <= most_px) return cut;
  }
  return "…";
}

interface TextItem {
  text?: unknown;
  fontSize?: number;
  limit?: number;
}

const VEGA_FONT_SIZE = 11;

/**
 * Gives Vega real text widths. Without a canvas it takes every character to be 0.8 em wide, which cuts labels short and
 * leaves wide gaps; with node-canvas it would depend on the fonts of the machine, and so would the bytes of the chart.
 */
function measureTextOurselves(): void {
  const { textMetrics } = vega as unknown as { textMetrics: { width: (item: TextItem, text?: unknown) => number } };
  textMetrics.width = (item, text) => textWidth(String(text ?? item.text ?? ""), item.fontSize ?? VEGA_FONT_SIZE);
}

/** The chart as SVG text. The same specification gives the same bytes. */
export async function renderSvg(spec: ChartSpec): Promise<string> {
  measureTextOurselves();
  // Ids of clip paths and gradients are counted per process, not per chart.
  vega.resetSVGDefIds();
  const compiled = compile(spec as unknown as TopLevelSpec, { logger: vega.logger(vega.Error) }).spec;
  const view = new vega.View(vega.parse(compiled), { renderer: "none", logLevel: vega.Error });
  try {
    return printable(await view.toSVG());
  } finally {
    view.finalize();
  }
}
