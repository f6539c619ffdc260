import type { Summary } from "../../records/summary.ts";
import { cautions } from "./cautions.ts";
import type { Chart } from "./charts.ts";
import { groupText } from "./format.ts";
import { headline } from "./headline.ts";
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

/** Text that Markdown shows as it stands: no markup, no cell borders, no HTML. */
function escapeMarkdown(text: string): string {
  return text
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replace(/[\\`*_{}[\]|#~]/g, "\\$&")
    .replace(/\s*\r?\n\s*/g, " ");
}

const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;

function renderTable({ title, caption, columns, rows }: Table): string {
  return [
    `## ${title}`,
    "",
    line(columns.map((column) => escapeMarkdown(column.name))),
    line(columns.map((column) => (column.isNumeric ? "---:" : "---"))),
    ...rows.map((row) => line(row.map(escapeMarkdown))),
    "",
    escapeMarkdown(caption),
  ].join("\n");
}

const renderChart = ({ name, caption }: Chart) => `![${escapeMarkdown(caption)}](${name}.svg)`;

/** `report.md`: the result, the charts as links to their SVG files, and the tables. */
export function renderMarkdown(summary: Summary, charts: readonly Chart[]): string {
  const tables = [
    ratesTable(summary),
    contrastsTable(summary),
    responsesTable(summary),
    sensitivityTable(summary),
    parityTable(summary),
    modelsTable(summary),
    provenanceTable(summary),
  ];
  const groups = summary.groups.map(
    (group) => `- **${escapeMarkdown(group.id)}**: ${escapeMarkdown(groupText(group))}`,
  );
  const blocks = [
    `# ${escapeMarkdown(summary.name)}`,
    `**${escapeMarkdown(headline(summary))}**`,
    ...[...summary.notes, ...cautions(summary)].map((note) => `> ${escapeMarkdown(note)}`),
    ...charts.map(renderChart),
    groups.join("\n"),
    ...tables.map(renderTable),
    "Responses to read are in report.html; every number is in summary.json and rates.csv.",
  ];
  return `${blocks.filter((block) => block !== "").join("\n\n")}\n`;
}
