import { join } from "node:path";
import { writeFileAtomic } from "../../artifacts/atomic.ts";
import { Summary } from "../../records/summary.ts";
import { chartsOf, renderSvg } from "./charts.ts";
import { renderCsv } from "./csv.ts";
import { renderHtml } from "./html.ts";
import type { ReportInput } from "./input.ts";
import { renderMarkdown } from "./markdown.ts";
import { buildSummary } from "./summary.ts";

const json = (value: unknown) => `${JSON.stringify(value, null, 2)}\n`;

/**
 * Every file of a report by name. No dates and no paths of this machine: the same input gives the same bytes.
 *
 * @throws {DriverError} `DATA_INVALID`, see `validateInput`
 */
export async function renderReport(input: ReportInput): Promise<Map<string, string>> {
  const summary = Summary.parse(buildSummary(input));
  const charts = chartsOf(input, summary);
  const files = new Map<string, string>([["summary.json", json(summary)]]);
  const drawn = [];
  for (const chart of charts) {
    const svg = await renderSvg(chart.spec);
    drawn.push({ ...chart, svg });
    files.set(`${chart.name}.vl.json`, json(chart.spec));
    files.set(`${chart.name}.svg`, svg);
  }
  files.set("rates.csv", renderCsv(summary));
  files.set("report.md", renderMarkdown(summary, charts));
  files.set("report.html", renderHtml(input, summary, drawn));
  return files;
}

/** Writes a report into `dir`, each file atomically, and says what it wrote: absolute or relative as `dir` is. */
export async function writeReport(dir: string, input: ReportInput): Promise<{ files: string[] }> {
  const rendered = await renderReport(input);
  const files: string[] = [];
  for (const [name, text] of rendered) {
    const path = join(dir, name);
    await writeFileAtomic(path, text);
    files.push(path);
  }
  return { files };
}
