import { type TokenPiece, visible } from "../token-pieces.ts";
import { PREVIEW_STYLE, previewPolicy } from "./style.ts";

export interface PreviewRow {
  /** Line of the data file, from 1. */
  line: number;
  /** Why this row is shown, e.g. `longest`; empty for none. */
  why: string;
  /** Tokens that `max_length` cut off its end. */
  cut_tokens: number;
  pieces: readonly TokenPiece[];
}

export interface PreviewPage {
  title: string;
  /** A sentence under the title. */
  lead: string;
  /** Large numbers with what they count. */
  counts: readonly (readonly [value: string, of: string])[];
  facts: readonly (readonly [name: string, value: string])[];
  /** Hashes and the like, below the rows. */
  provenance: readonly (readonly [name: string, value: string])[];
  rows: readonly PreviewRow[];
}

/** Pieces of one row that the page shows; of longer rows the start, the first border of the targets, and the end. */
const MOST_PIECES = 1800;
const WINDOW = MOST_PIECES / 3;

const ESCAPES: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
const escapeHtml = (text: string): string => visible(text).replace(/[&<>"']/g, (c) => ESCAPES[c] ?? c);

/** A page that shows training rows token by token, the trained ones marked. It loads nothing and runs nothing. */
export function previewHtml({ title, lead, counts, facts, provenance, rows }: PreviewPage): string {
  const numbers = counts.map(([value, of]) => `<li><b>${escapeHtml(value)}</b><span>${escapeHtml(of)}</span></li>`);
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${previewPolicy()}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHtml(title)}</title>
<style>${PREVIEW_STYLE}</style>
</head>
<body>
<main>
<h1>${escapeHtml(title)}</h1>
<p class="lead">${escapeHtml(lead)}</p>
<ul class="counts">${numbers.join("")}</ul>
${renderTable(facts)}
${rows.map(renderRow).join("\n")}
<h2>Provenance</h2>
${renderTable(provenance)}
</main>
</body>
</html>
`;
}

function renderTable(facts: PreviewPage["facts"]): string {
  const rows = facts.map(([name, value]) => `<tr><th>${escapeHtml(name)}</th><td>${escapeHtml(value)}</td></tr>`);
  return `<table>${rows.join("\n")}</table>`;
}

function renderRow({ line, why, cut_tokens, pieces }: PreviewRow): string {
  const tokens = pieces.reduce((sum, { ids }) => sum + ids.length, 0);
  const targets = pieces.reduce((sum, { ids, is_target }) => sum + (is_target ? ids.length : 0), 0);
  const cut = cut_tokens === 0 ? [] : [`${cut_tokens} tokens cut off its end`];
  const facts = [`${tokens} tokens`, `${targets} trained`, ...cut, ...(why === "" ? [] : [why])];
  const head = `<h2>Line ${line} ${facts.map((fact) => `<small>${escapeHtml(fact)}</small>`).join(" ")}</h2>`;
  return `${head}\n<pre${cut_tokens > 0 ? ' class="cut"' : ""}>${renderPieces(pieces)}</pre>`;
}

function renderPieces(pieces: readonly TokenPiece[]): string {
  if (pieces.length <= MOST_PIECES) return pieces.map(renderPiece).join("");
  const border = Math.max(0, pieces.findIndex(({ is_target }) => is_target) - WINDOW / 2);
  let text = "";
  let done = 0;
  for (const start of [0, border, pieces.length - WINDOW]) {
    const from = Math.max(start, done);
    const skipped = pieces.slice(done, from).reduce((sum, { ids }) => sum + ids.length, 0);
    if (skipped > 0) text += `<span class="gap">${skipped} tokens are not shown here</span>`;
    const stop = Math.max(done, Math.min(start + WINDOW, pieces.length));
    text += pieces.slice(from, stop).map(renderPiece).join("");
    done = Math.max(done, stop);
  }
  return text;
}

function renderPiece({ ids, text, is_target, is_special }: TokenPiece): string {
  const kinds = [...(is_target ? ["t"] : []), ...(is_special ? ["s"] : [])];
  const name = `${ids.join(" ")}${is_target ? ", trained" : ""}`;
  return `<span${kinds.length === 0 ? "" : ` class="${kinds.join(" ")}"`} title="${name}">${renderText(text)}</span>`;
}

/** Line feeds are shown and obeyed; what was escaped stands out from the same characters in the data. */
function renderText(text: string): string {
  return text
    .split(/(\n|[^\n]+)/u)
    .filter((part) => part !== "")
    .map((part) => (part === "\n" ? "<u>↵</u>\n" : [...part].map(renderCharacter).join("")))
    .join("");
}

function renderCharacter(character: string): string {
  const seen = visible(character);
  return seen === character ? escapeHtml(character) : `<i>${escapeHtml(seen)}</i>`;
}
