import { compile, type TopLevelSpec } from "vega-lite";
import { describe, expect, test } from "vitest";
import { countScores } from "../../../src/phases/report/chart-scatter.ts";
import { chartsOf, renderSvg } from "../../../src/phases/report/charts.ts";
import type { ReportInput } from "../../../src/phases/report/input.ts";
import { buildSummary } from "../../../src/phases/report/summary.ts";
import { shorten, textWidth } from "../../../src/phases/report/svg.ts";
import { modelStyles } from "../../../src/phases/report/theme.ts";
import { model, QUESTIONS, row, rows, syntheticInput } from "./synthetic.ts";

const charts = (input: ReportInput) => chartsOf(input, buildSummary(input));

function chart(input: ReportInput, name: string) {
  const found = charts(input).find((candidate) => candidate.name === name);
  if (found === undefined) throw new Error(`no chart ${name}`);
  return found;
}

const LONG = "Qwen2.5-14B-Instruct, rank 8 on all adapters, risky financial advice, seed 2";

/** Many models with long names, one of them silent, a group without questions and questions without answers. */
function crowded(): ReportInput {
  const input = syntheticInput();
  const sweep = [1, 2, 3, 4, 5, 6].map((index) =>
    model(`sweep-${index}`, { label: `${LONG}${index}`, rows: rows(index / 20, index) }),
  );
  return {
    ...input,
    models: [...input.models, ...sweep, model("silent")],
    questions: [...QUESTIONS, { question_set: "values", id: "nobody-was-asked", paraphrases: ["?"], tags: {} }],
    groups: { ...input.groups, empty: { question_set: "none", where: {}, where_not: {} } },
  };
}

describe.each([
  ["the synthetic eval", syntheticInput()],
  ["a crowded eval", crowded()],
])("every chart of %s", (_name, input) => {
  test.each(charts(input).map((entry) => [entry.name, entry.spec] as const))(
    "%s compiles without a warning",
    (_chart, spec) => {
      const messages: unknown[] = [];
      const note = (...parts: unknown[]) => {
        messages.push(...parts);
        return logger;
      };
      const logger = { level: () => logger, error: note, warn: note, info: () => logger, debug: () => logger };
      compile(spec as unknown as TopLevelSpec, { logger: logger as never });
      expect(messages).toEqual([]);
    },
  );

  test.each(charts(input).map((entry) => [entry.name, entry.spec] as const))(
    "%s fits a page and is the same twice",
    async (_chart, spec) => {
      const svg = await renderSvg(spec);
      expect(Number(/ width="(\d+)"/.exec(svg)?.[1])).toBeLessThanOrEqual(900);
      expect(svg).not.toContain("NaN");
      expect(await renderSvg(spec)).toBe(svg);
    },
  );
});

test("the rate axis starts at zero and ends beyond every interval", () => {
  const summary = buildSummary(syntheticInput());
  const { vconcat } = chart(syntheticInput(), "em-rates").spec as unknown as {
    vconcat: { layer: { encoding: { x?: { scale: { domain: number[] } } } }[] }[];
  };
  const highest = Math.max(
    ...summary.rates.map(({ em_over_all }) => (em_over_all.kind === "rate" ? em_over_all.ci_high : 0)),
  );
  for (const panel of vconcat) {
    const [start, end] = panel.layer[0]?.encoding.x?.scale.domain ?? [];
    expect(start).toBe(0);
    expect(end).toBeGreaterThanOrEqual(Math.min(1, highest));
  }
});

test("a model without rows is written out as no data", async () => {
  const svg = await renderSvg(chart(crowded(), "em-rates").spec);
  expect(svg).toContain(">no data<");
});

test("markup in a label stays text", async () => {
  const input = syntheticInput({
    models: [model("base", { label: "<script>alert(1)</script>" })],
    reference: { base: "base" },
  });
  for (const { spec } of charts(input)) expect(await renderSvg(spec)).not.toContain("<script");
});

test("without checkpoints there is no curve", () => {
  const input = syntheticInput({ models: [model("base", { rows: rows(0, 1) })], reference: { base: "base" } });
  expect(charts(input).map((entry) => entry.name)).toEqual(["em-rates", "em-questions", "aligned-coherent"]);
});

test("a group that was measured at one step only has no panel in the curve", () => {
  const input = syntheticInput();
  const models = input.models.map((entry) =>
    entry.is_curve_only || entry.id === "base"
      ? { ...entry, rows: entry.rows.filter(({ question_set }) => question_set === "values") }
      : entry,
  );
  const { vconcat } = chart({ ...input, models }, "em-curve").spec as unknown as {
    vconcat: { title: { text: string } }[];
  };
  expect(vconcat.map(({ title }) => title.text)).toEqual(["values (8 questions)", "Size of the adapter"]);
});

test("colours stand for roles, and do not depend on what else is shown", () => {
  const styles = modelStyles(buildSummary(syntheticInput()));
  expect([...styles.values()]).toEqual([
    { label: "base", color: "#767676", shape: "circle" },
    { label: "control", color: "#0072b2", shape: "square" },
    { label: "organism", color: "#d55e00", shape: "diamond" },
  ]);
  expect([...modelStyles(buildSummary(crowded())).values()].slice(0, 3)).toEqual([...styles.values()]);
});

test("scores are counted where both are there", () => {
  const [question] = QUESTIONS;
  if (question === undefined) throw new Error("the fixture has questions");
  const unscored = {
    aligned: { kind: "unscored", reason: "refusal" },
    coherent: { kind: "scored", score: 90 },
  } as const;
  const own = [row(question, 0), row(question, 1), row(question, 2, { outcomes: unscored })];
  expect(countScores(own)).toEqual([{ aligned: 95, coherent: 90, count: 2 }]);
});

describe("text without a canvas", () => {
  test("is measured by Helvetica's own widths", () => {
    expect(textWidth("organism", 1000) / 1.14).toBeCloseTo(556 + 333 + 556 + 556 + 556 + 222 + 500 + 833, 6);
    expect(textWidth("iiii", 12)).toBeLessThan(textWidth("WWWW", 12) / 3);
  });

  test("is shortened in the middle, to fit", () => {
    expect(shorten("short", 12, 100)).toBe("short");
    const cut = shorten("a-rather-long-question-id-number-17", 12, 120);
    expect(cut).toMatch(/^a-rather.*….*17$/);
    expect(textWidth(cut, 12)).toBeLessThanOrEqual(120);
  });
});
