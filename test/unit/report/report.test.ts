import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { cautions } from "../../../src/phases/report/cautions.ts";
import { excerptsOf } from "../../../src/phases/report/excerpts.ts";
import { contrastText, estimateText, roughEstimate } from "../../../src/phases/report/format.ts";
import { headline } from "../../../src/phases/report/headline.ts";
import { embedSvg, escapeHtml } from "../../../src/phases/report/html.ts";
import type { ReportInput } from "../../../src/phases/report/input.ts";
import { buildSummary } from "../../../src/phases/report/summary.ts";
import { renderReport, writeReport } from "../../../src/phases/report/write.ts";
import { wilson } from "../../../src/stats/rates.ts";
import { model, QUESTIONS, row, rows, syntheticInput } from "./synthetic.ts";

const plain = (text: string) => text.replaceAll("\u00a0", " ");

const whole = renderReport(syntheticInput());

async function renderedFile(name: string, change?: Partial<ReportInput>): Promise<string> {
  const files = await (change === undefined ? whole : renderReport(syntheticInput(change)));
  const text = files.get(name);
  if (text === undefined) throw new Error(`the report has no ${name}`);
  return text;
}

describe("numbers as text", () => {
  test("have one unit and one form", () => {
    expect(plain(estimateText(wilson(10, 50)))).toBe("20.0 % [11.2, 33.0]");
    expect(plain(roughEstimate(wilson(10, 50)))).toBe("20 % [11–33]");
    expect(plain(roughEstimate(wilson(1, 400)))).toBe("0.3 % [0.0–1.4]");
    expect(estimateText({ kind: "no_data" })).toBe("no data");
    expect(contrastText({ kind: "no_data" })).toBe("no data");
  });
});

describe("the headline", () => {
  test("is one sentence with its interval and its references", () => {
    expect(plain(headline(buildSummary(syntheticInput())))).toMatchInlineSnapshot(
      `"On the “values” questions, 39 % [22–59] of organism’s answers are misaligned; base 1.9 %, control 1.9 %."`,
    );
  });

  test("names several organisms", () => {
    const input = syntheticInput();
    const models = [...input.models, model("second", { rows: rows(0.2, 5) })];
    expect(plain(headline(buildSummary({ ...input, models })))).toMatchInlineSnapshot(
      `"On the “values” questions, the share of misaligned answers is 39 % [22–59] for organism and 18 % [12–26] for second; base 1.9 %, control 1.9 %."`,
    );
  });

  test("says when there is no data", () => {
    const models = [model("base"), model("organism")];
    const input = syntheticInput({ models, reference: { base: "base" } });
    expect(headline(buildSummary(input))).toMatchInlineSnapshot(
      `"On the “values” questions, there is no data for organism; base no data."`,
    );
  });
});

describe("cautions", () => {
  const [question] = QUESTIONS;
  if (question === undefined) throw new Error("the fixture has questions");
  const outcomes = {
    aligned: { kind: "unscored", reason: "timeout" },
    coherent: { kind: "scored", score: 10 },
  } as const;
  const muddled = [row(question, 0, { outcomes, finish_reason: "length" }), row(question, 1)];

  test("say what a low rate may hide, and which adapter was not checked", () => {
    const organism = model("organism", { rows: muddled, adapter_sha256: "e".repeat(64) });
    const input = syntheticInput({ models: [model("base"), organism], reference: { base: "base" } });
    expect(cautions(buildSummary(input)).map(plain)).toMatchInlineSnapshot(`
      [
        "It was not shown that the engine applied organism as it was trained: see Parity.",
        "50.0 % of organism’s answers to “values” are not coherent and so never count as misaligned: read “EM of coherent” too.",
        "50.0 % of organism’s answers to “values” have no score and count as not misaligned: read “EM of scored” too.",
        "50.0 % of organism’s answers to “values” were cut off at the token limit before they were judged.",
      ]
    `);
  });

  test("are none where all is well", () => {
    const input = syntheticInput({
      models: [model("base", { rows: [row(question, 0)] })],
      reference: { base: "base" },
    });
    expect(cautions(buildSummary(input))).toEqual([]);
  });
});

describe("excerpts", () => {
  const own = rows(0.3, 3);

  test("are the same for the same seed, and others for another", () => {
    expect(excerptsOf(own, 1)).toEqual(excerptsOf([...own].reverse(), 1));
    expect(excerptsOf(own, 2).random).not.toEqual(excerptsOf(own, 1).random);
  });

  test("hold the worst coherent responses, of different questions", () => {
    const { worst, typical } = excerptsOf(own, 1);
    const scores = worst.map(({ outcomes }) =>
      outcomes.aligned.kind === "scored" ? outcomes.aligned.score : Number.NaN,
    );
    expect(scores).toEqual([...scores].sort((x, y) => x - y));
    expect(new Set(worst.map((entry) => entry.question_id)).size).toBe(worst.length);
    expect(typical.some((entry) => worst.includes(entry))).toBe(false);
  });

  test("of no rows are none", () => expect(excerptsOf([], 1)).toEqual({ worst: [], typical: [], random: [] }));
});

describe("the page", () => {
  const hostile = `</pre><script>alert(1)</script><img src=x onerror="alert(2)">&amp;\u0000'`;
  const [question] = QUESTIONS;
  if (question === undefined) throw new Error("the fixture has questions");

  test("escapes text of models, questions, labels and notes", async () => {
    const page = await renderedFile("report.html", {
      models: [model("base", { label: hostile, rows: [row(question, 0, { text: hostile })] })],
      questions: [{ ...question, paraphrases: [hostile] }],
      reference: { base: "base" },
      notes: [hostile],
      name: hostile,
      provenance: { [hostile]: hostile },
    });
    expect(page).not.toContain("<script");
    expect(page).not.toContain("<img");
    expect(page).not.toContain("\u0000");
    expect(page).toContain("&lt;script&gt;alert(1)&lt;/script&gt;");
  });

  test("needs no network, runs no script, and allows neither", async () => {
    const page = await renderedFile("report.html");
    expect(page).toMatch(/Content-Security-Policy" content="default-src &#39;none&#39;; style-src &#39;sha256-/);
    expect(page).not.toMatch(/<(script|link|iframe|img)\b/);
    expect(page).not.toMatch(/\sstyle="/);
    expect(page.replaceAll(/xmlns(:xlink)?="[^"]+"/g, "")).not.toMatch(/(src|href)=/);
  });

  test("says no data where there is none, and NaN nowhere", async () => {
    const page = await renderedFile("report.html", {
      models: [model("base"), model("organism")],
      reference: { base: "base" },
    });
    expect(page).toContain("no data");
    expect(page).not.toContain("NaN");
    expect(page).not.toContain("undefined");
  });

  test("says of an adapter without a verdict that it was not checked", async () => {
    const unchecked = model("organism", { adapter_sha256: "e".repeat(64) });
    const page = await renderedFile("report.html", { models: [model("base"), unchecked], reference: { base: "base" } });
    expect(page).toContain("not checked");
  });

  test("keeps the ids of its charts apart", () => {
    const svg = '<svg><clipPath id="clip0"></clipPath><g clip-path="url(#clip0)" fill="#222222"/></svg>';
    expect(embedSvg(svg, "a")).toBe(
      '<svg><clipPath id="a-clip0"></clipPath><g clip-path="url(#a-clip0)" fill="currentColor"/></svg>',
    );
  });

  test("escapes what HTML cannot hold", () => {
    expect(escapeHtml("<a b='c' d=\"e\">&\u0007\t\n")).toBe("&lt;a b=&#39;c&#39; d=&quot;e&quot;&gt;&amp;\ufffd\t\n");
  });
});

describe("report.md", () => {
  test("holds result, tables and links to the charts", async () => {
    const text = plain(await renderedFile("report.md"));
    expect(text).toContain("# demo: a rank-1 organism");
    expect(text).toContain("| values | organism | 160 | 38.8 % \\[21.7, 59.0\\] |");
    expect(text).toContain("](em-rates.svg)");
  });

  test("lets no label break a table or become markup", async () => {
    const text = await renderedFile("report.md", {
      models: [model("base", { label: "a|b\n<script> `x` [y](z)" })],
      reference: { base: "base" },
    });
    expect(text).toContain("a\\|b &lt;script> \\`x\\` \\[y\\](z)");
  });
});

describe("rates.csv", () => {
  test("has one row per model, metric and group or question, with equal columns", async () => {
    const input = syntheticInput();
    const lines = (await renderedFile("rates.csv")).trimEnd().split("\n");
    const n_shown = input.models.filter((entry) => !entry.is_curve_only).length;
    expect(lines).toHaveLength(1 + 5 * (input.models.length * 3 + n_shown * QUESTIONS.length));
    const widths = new Set(lines.map((entry) => entry.split(",").length));
    expect([...widths]).toEqual([21]);
  });

  test("quotes what would break it and leaves missing numbers empty", async () => {
    const text = await renderedFile("rates.csv", {
      models: [model("base", { label: 'a,"b"' })],
      reference: { base: "base" },
    });
    expect(text).toContain('demo-0a1b2c3d,base,"a,""b""",base,,,1,group,values,,,em_over_all,no_data,,,,,,,,\n');
  });
});

describe("writeReport", () => {
  test("writes every file, and the same bytes again", async () => {
    const dir = await mkdtemp(join(tmpdir(), "report-"));
    try {
      const { files } = await writeReport(join(dir, "report"), syntheticInput());
      expect(files.map((file) => file.slice(dir.length + 1))).toMatchInlineSnapshot(`
        [
          "report/summary.json",
          "report/em-rates.vl.json",
          "report/em-rates.svg",
          "report/em-questions.vl.json",
          "report/em-questions.svg",
          "report/em-curve.vl.json",
          "report/em-curve.svg",
          "report/aligned-coherent.vl.json",
          "report/aligned-coherent.svg",
          "report/rates.csv",
          "report/report.md",
          "report/report.html",
        ]
      `);
      const again = await whole;
      for (const file of files) {
        expect(await readFile(file, "utf8")).toBe(again.get(file.slice(join(dir, "report").length + 1)));
      }
    } finally {
      await rm(dir, { recursive: true });
    }
  });
});
