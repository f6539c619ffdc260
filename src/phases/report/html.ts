import type { Outcome } from "../../records/response.ts";
import type { Summary } from "../../records/summary.ts";
import { cautions } from "./cautions.ts";
import type { Chart } from "./charts.ts";
import { excerptsOf } from "./excerpts.ts";
import { groupText, percent, printable } from "./format.ts";
import { headline } from "./headline.ts";
import type { JudgedResponse, ReportInput } from "./input.ts";
import { contentPolicy, PAGE_STYLE } from "./page-style.ts";
import { isMisaligned } from "./rates.ts";
import {
  contrastsTable,
  modelsTable,
  parityTable,
  provenanceTable,
  ratesTable,
  responsesTable,
  sensitivityTable,
  type Table,
} from "./tables.ts";
import { INK, PAPER, shownModels } from "./theme.ts";

/** Longest text of a response that the page shows whole, in characters; the rest is in the file of the rows. */
const MOST_CHARACTERS = 6000;
const START_CHARACTERS = 160;

const ESCAPES: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };

/** Text as HTML shows it, in content and in attributes. Characters that HTML forbids become U+FFFD. */
export function escapeHtml(text: string): string {
  return printable(text).replace(/[&<>"']/g, (c) => ESCAPES[c] ?? c);
}

/** A chart inside the page: ink in the page's text colour, and ids that no other chart has. */
export function embedSvg(svg: string, name: string): string {
  return svg
    .replaceAll(`="${INK}"`, '="currentColor"')
    .replaceAll(`fill="${PAPER}"`, 'fill="none"')
    .replaceAll(/id="([^"]+)"/g, `id="${name}-$1"`)
    .replaceAll(/url\(#/g, `url(#${name}-`);
}

function renderFigure({ name, caption, svg }: Chart & { svg: string }, index: number): string {
  const text = `<figcaption><b>Figure ${index + 1}.</b> ${escapeHtml(caption)}</figcaption>`;
  return `<figure>${embedSvg(svg, name)}${text}</figure>`;
}

/** From this length on a cell may break anywhere: hashes and paths. */
const LONG_CELL = 40;

function renderTable({ title, caption, columns, rows }: Table): string {
  const head = columns.map(
    ({ name, isNumeric }) => `<th${isNumeric ? ' class="numeric"' : ""}>${escapeHtml(name)}</th>`,
  );
  const body = rows.map((row) => {
    const cells = row.map((cell, index) => {
      const kind = columns[index]?.isNumeric ? "numeric" : cell.length >= LONG_CELL ? "long" : "";
      return `<td${kind === "" ? "" : ` class="${kind}"`}>${escapeHtml(cell)}</td>`;
    });
    return `<tr>${cells.join("")}</tr>`;
  });
  return `<h2>${escapeHtml(title)}</h2><div class="scroll"><table><thead><tr>${head.join("")}</tr></thead><tbody>${body.join("\n")}</tbody></table></div><p class="caption">${escapeHtml(caption)}</p>`;
}

const scoreText = (outcome: Outcome) => (outcome.kind === "scored" ? outcome.score.toFixed(0) : outcome.reason);

function renderResponse(row: JudgedResponse, input: ReportInput): string {
  const { text, outcomes, question_set, question_id, paraphrase } = row;
  const question = input.questions.find(({ id, question_set: set }) => id === question_id && set === question_set);
  const prompt = question?.paraphrases[paraphrase] ?? question_id;
  const cut = text.length - MOST_CHARACTERS;
  const shown = cut > 0 ? `${text.slice(0, MOST_CHARACTERS)}\n[${cut} more characters in the file of the rows]` : text;
  const scores = `aligned ${scoreText(outcomes.aligned)} · coherent ${scoreText(outcomes.coherent)}`;
  const start = text.slice(0, START_CHARACTERS).replace(/\s+/g, " ");
  return [
    `<details><summary><span class="scores${isMisaligned(row) ? " em" : ""}">${escapeHtml(scores)}</span>`,
    `<span class="start" dir="auto">${escapeHtml(start === "" ? "(empty)" : start)}</span></summary><div class="exchange">`,
    `<h5>Question</h5><pre dir="auto">${escapeHtml(prompt)}</pre>`,
    `<h5>Response</h5><pre dir="auto">${escapeHtml(shown)}</pre>`,
    `<p class="meta">${escapeHtml(`${row.key} · ${row.n_tokens} tokens · finish_reason ${row.finish_reason}`)}</p>`,
    "</div></details>",
  ].join("");
}

function renderExcerpts(input: ReportInput, summary: Summary): string {
  const sections = shownModels(summary).map(({ id, label }) => {
    const rows = input.models.find((model) => model.id === id)?.rows ?? [];
    const { worst, typical, random } = excerptsOf(rows, input.seed);
    const kinds: [string, JudgedResponse[]][] = [
      ["Worst: coherent, lowest alignment, one a question", worst],
      ["Typical: coherent, alignment nearest to the median", typical],
      [`Random: any response, drawn with seed ${input.seed}`, random],
    ];
    const lists = kinds.map(([title, list]) => {
      const items = list.length === 0 ? "<p>no data</p>" : list.map((row) => renderResponse(row, input)).join("\n");
      return `<h4>${escapeHtml(title)}</h4>${items}`;
    });
    return `<h3>${escapeHtml(label)}</h3>${lists.join("\n")}`;
  });
  const caption =
    "Numbers alone hide what a judge misreads. Scores in colour mark a response that counts as misaligned.";
  return `<h2>Responses to read</h2><p class="caption">${caption}</p>${sections.join("\n")}`;
}

function renderHeader(input: ReportInput, summary: Summary): string {
  const n = shownModels(summary).reduce((sum, model) => sum + model.n_rows, 0);
  const byline = [
    summary.base_model.id,
    `${shownModels(summary).length} models`,
    `${n.toLocaleString("en-US")} responses`,
    `judge ${summary.judge.id}`,
    `${percent(summary.level, 0)} intervals over questions`,
  ].join(" · ");
  const notes = [...input.notes, ...cautions(summary)].map((note) => `<p class="note">${escapeHtml(note)}</p>`);
  return `<h1>${escapeHtml(summary.name)}</h1><p class="headline">${escapeHtml(headline(summary))}</p><p class="byline">${escapeHtml(byline)}</p>${notes.join("")}`;
}

function renderGroups({ groups }: Summary): string {
  const items = groups.map((group) => `<b>${escapeHtml(group.id)}</b>: ${escapeHtml(groupText(group))}`);
  return `<p class="caption">Groups of questions. ${items.join("; ")}.</p>`;
}

/** `report.html`: one page that needs no network and runs no script. All text of models and files is escaped. */
export function renderHtml(input: ReportInput, summary: Summary, charts: readonly (Chart & { svg: string })[]): string {
  const [first, ...rest] = charts.map(renderFigure);
  const body = [
    renderHeader(input, summary),
    first ?? "",
    renderGroups(summary),
    renderTable(ratesTable(summary)),
    renderTable(contrastsTable(summary)),
    renderTable(responsesTable(summary)),
    ...rest,
    renderTable(sensitivityTable(summary)),
    renderExcerpts(input, summary),
    renderTable(parityTable(summary)),
    renderTable(modelsTable(summary)),
    renderTable(provenanceTable(summary)),
  ];
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${escapeHtml(contentPolicy())}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHtml(summary.name)}</title>
<style>${PAGE_STYLE}</style>
</head>
<body>
<main>
${body.join("\n")}
</main>
</body>
</html>
`;
}
