import { createHash } from "node:crypto";

/** The page's whole style. Trained tokens have a ground and a line below them, so that they show without colour too. */
export const PREVIEW_STYLE = `
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1d2025; --soft: #5c636e; --line: #d9dce1; --wash: #f5f6f8; --target: #cfeee1; --mark: #009e73; --border: #00000026; --escape: #b04a00; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #15171b; --ink: #e6e8eb; --soft: #a2a9b4; --line: #353a43; --wash: #1e2127; --target: #0d3f33; --mark: #3ecfa3; --border: #ffffff2b; --escape: #e69f00; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 Helvetica Neue, Helvetica, Arial, Liberation Sans, DejaVu Sans, sans-serif; }
main { max-width: 940px; margin: 0 auto; padding: 36px 24px 72px; }
h1 { font-size: 22px; line-height: 1.3; font-weight: 600; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 14px; font-weight: 600; margin: 26px 0 6px; display: flex; flex-wrap: wrap; gap: 4px 14px; align-items: baseline; }
h2 small { font-size: 13px; font-weight: 400; color: var(--soft); font-variant-numeric: tabular-nums; }
.lead { color: var(--soft); margin: 0 0 18px; max-width: 78ch; }
.counts { display: flex; flex-wrap: wrap; gap: 10px 36px; margin: 0 0 18px; padding: 0; list-style: none; }
.counts b { display: block; font-size: 20px; font-weight: 600; font-variant-numeric: tabular-nums; }
.counts span { color: var(--soft); font-size: 13px; }
table { border-collapse: collapse; font-size: 13px; width: 100%; border-top: 1px solid var(--line); }
th { text-align: left; font-weight: 400; color: var(--soft); padding: 5px 18px 5px 0; vertical-align: top; white-space: nowrap; border-bottom: 1px solid var(--line); }
td { padding: 5px 0; vertical-align: top; overflow-wrap: anywhere; border-bottom: 1px solid var(--line); width: 100%; }
pre { margin: 0; padding: 12px 14px; background: var(--wash); border: 1px solid var(--line); border-radius: 5px; font: 13px/1.75 ui-monospace, SFMono-Regular, Menlo, Consolas, DejaVu Sans Mono, monospace; white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: isolate; }
pre span { box-shadow: inset -1px 0 0 var(--border); }
.t { background: var(--target); border-bottom: 2px solid var(--mark); }
.s { font-weight: 600; color: var(--soft); }
.t.s { color: var(--ink); }
i { font-style: normal; color: var(--escape); }
u { text-decoration: none; color: var(--soft); }
.gap { display: block; color: var(--soft); font-style: italic; box-shadow: none; padding: 4px 0; }
pre.cut { border-bottom: 2px dashed var(--escape); }
@media print { :root { color-scheme: light; --paper: #ffffff; --ink: #000000; --wash: #ffffff; } pre { break-inside: avoid; } }
`;

/** Nothing may load or run: the page holds all it needs, and text of a data set can do nothing in it. */
export function previewPolicy(): string {
  const hash = createHash("sha256").update(PREVIEW_STYLE).digest("base64");
  return `default-src 'none'; style-src 'sha256-${hash}'; base-uri 'none'; form-action 'none'`;
}
