import { createHash } from "node:crypto";
import { FONT } from "./theme.ts";

/** The page's whole style. It is hashed into the page's policy, so no other style, script or request can run. */
export const PAGE_STYLE = `
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1d2025; --soft: #5c636e; --line: #d9dce1; --wash: #f5f6f8; --accent: #0072b2; --warn: #d55e00; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #15171b; --ink: #e6e8eb; --soft: #a2a9b4; --line: #353a43; --wash: #1e2127; --accent: #56b4e9; --warn: #e69f00; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.55 ${FONT}; }
main { max-width: 940px; margin: 0 auto; padding: 40px 24px 80px; }
h1 { font-size: 20px; font-weight: 600; margin: 0 0 12px; color: var(--soft); overflow-wrap: anywhere; }
.headline { font-size: 26px; line-height: 1.3; font-weight: 600; margin: 0 0 12px; letter-spacing: -0.01em; }
.byline { color: var(--soft); margin: 0 0 24px; }
h2 { font-size: 19px; margin: 48px 0 6px; }
h3 { font-size: 15px; margin: 28px 0 6px; }
h4 { font-size: 13px; margin: 14px 0 4px; color: var(--soft); font-weight: 600; }
p { margin: 0 0 10px; }
.note { border-left: 3px solid var(--warn); background: var(--wash); padding: 10px 14px; margin: 0 0 10px; border-radius: 0 4px 4px 0; }
figure { margin: 28px 0 0; break-inside: avoid; }
figure svg { display: block; max-width: 100%; height: auto; }
figcaption, .caption { color: var(--soft); font-size: 13px; line-height: 1.5; margin: 6px 0 0; max-width: 78ch; }
figcaption b, .caption b { color: var(--ink); }
.scroll { overflow-x: auto; margin-top: 12px; }
table { border-collapse: collapse; font-size: 13px; width: 100%; border-top: 1.5px solid var(--ink); border-bottom: 1.5px solid var(--ink); }
th { text-align: left; font-weight: 600; border-bottom: 1px solid var(--ink); padding: 6px 14px 6px 0; vertical-align: bottom; }
td { padding: 5px 14px 5px 0; vertical-align: top; border-bottom: 1px solid var(--line); }
tr:last-child td { border-bottom: 0; }
th:last-child, td:last-child { padding-right: 0; }
th.numeric, td.numeric { text-align: right; font-variant-numeric: tabular-nums; }
td.numeric { white-space: nowrap; }
td.long { overflow-wrap: anywhere; min-width: 10ch; }
details { border: 1px solid var(--line); border-radius: 5px; margin: 5px 0; }
summary { cursor: pointer; padding: 6px 10px; font-size: 13px; display: flex; gap: 10px; align-items: baseline; }
summary:hover { background: var(--wash); }
.scores { flex: none; min-width: 21ch; font-variant-numeric: tabular-nums; color: var(--soft); }
.scores.em { color: var(--warn); font-weight: 600; }
.start { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; unicode-bidi: isolate; }
.exchange { padding: 4px 12px 12px; border-top: 1px solid var(--line); }
.exchange h5 { font-size: 12px; margin: 10px 0 2px; color: var(--soft); font-weight: 600; }
.exchange pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; font: inherit; font-size: 14px; unicode-bidi: isolate; }
.meta { color: var(--soft); font-size: 12px; margin: 10px 0 0; overflow-wrap: anywhere; }
@media print {
  :root { color-scheme: light; --paper: #ffffff; --ink: #000000; --soft: #444444; --line: #cccccc; --wash: #ffffff; }
  body { font-size: 10pt; }
  main { max-width: none; padding: 0; }
  .scroll { overflow: visible; }
  table { font-size: 7.5pt; }
  details:not([open]) { display: none; }
}
`;

/** Nothing may load or run: the page holds all it needs, and text of a model can do nothing in it. */
export function contentPolicy(): string {
  const hash = createHash("sha256").update(PAGE_STYLE).digest("base64");
  return `default-src 'none'; style-src 'sha256-${hash}'; base-uri 'none'; form-action 'none'`;
}
