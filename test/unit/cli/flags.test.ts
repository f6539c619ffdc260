import { expect, test } from "vitest";
import { chooseCheckpoints } from "../../../src/cli/checkpoints.ts";
import { takeJson, words } from "../../../src/cli/io.ts";
import {
  checkSaveAt,
  parseLayers,
  parseModules,
  parseSteps,
  type RecipeFlags,
  recipeFromFlags,
} from "../../../src/cli/recipe-flags.ts";
import type { PlannedRun } from "../../../src/pipeline/handles.ts";

test.each([
  [["eval", "--json", "runs/a", "runs/b"], ["eval", "runs/a", "runs/b"], true],
  [["run", "--json", "a.yaml", "b.yaml"], ["run", "a.yaml", "b.yaml"], true],
  [["run", "demo", "--json", "x.json", "--jobs", "1"], ["run", "demo", "--jobs", "1"], "x.json"],
  [["run", "demo", "--json=x.txt"], ["run", "demo"], "x.txt"],
  [["run", "demo", "--json="], ["run", "demo"], ""],
  [["run", "demo", "--json"], ["run", "demo"], true],
  [["run", "--", "--json"], ["run", "--", "--json"], undefined],
  [["run", "--json", "--", "x.json"], ["run", "--", "x.json"], true],
])("--json takes nothing but a file of its own: %j", (given, argv, json) => {
  expect(takeJson(given)).toEqual({ argv, json });
});

test("words lose blanks and repetitions", () => {
  expect(words(" a, b,,a\tc ")).toEqual(["a", "b", "c"]);
});

test("layers: names, lists and ranges, each layer once", () => {
  expect(parseLayers(" mid ")).toBe("mid");
  expect(parseLayers("all")).toBe("all");
  expect(parseLayers("3, 5-7,6")).toEqual([3, 5, 6, 7]);
});

test.each(["", " ", ",", "7-5", "x", "1.5", "-1"])("layers: %j is refused", (text) => {
  expect(() => parseLayers(text)).toThrow("--layers: expected mid, all, or as in 3,5-7");
});

test("modules: names, one expression, all-linear; never none", () => {
  expect(parseModules("down_proj, up_proj,down_proj")).toEqual(["down_proj", "up_proj"]);
  expect(parseModules("all-linear ")).toBe("all-linear");
  expect(parseModules(".*\\.(q|k)_proj")).toBe(".*\\.(q|k)_proj");
  expect(() => parseModules(" ")).toThrow("--modules: expected names");
});

test("save-at names what is no step and what lies beyond the last", () => {
  expect(parseSteps("8, 12,8")).toEqual([8, 12]);
  expect(() => parseSteps("3,x,1.5")).toThrow('--save-at: expected steps as in 8,12,16, got "x", "1.5"');
  expect(() => parseSteps("")).toThrow('got ""');
  expect(() => checkSaveAt([0, 8], 8)).not.toThrow();
  expect(() => checkSaveAt([8, 9, 12], 8)).toThrow("expected steps of at most 8, the last one, got 9, 12");
});

const set = (...settings: string[]) => recipeFromFlags({ set: settings } satisfies RecipeFlags);

test("set reads a YAML value, and a broken one is the user's to mend", () => {
  expect(set("weight_decay=0.1", "save_at_steps=[1, 2]")).toEqual({ weight_decay: 0.1, save_at_steps: [1, 2] });
  for (const bad of ["[1", "*nobody", "!!what 1", "[".repeat(20_000), "{a: 1, a: 2}"])
    expect(() => set(`weight_decay=${bad}`)).toThrow(
      expect.objectContaining({ code: "USAGE", message: expect.stringContaining("--set weight_decay: ") }),
    );
  expect(() => set("weight_decay=")).toThrow(expect.objectContaining({ code: "USAGE" }));
});

test("checkpoints: each once, none but the run's own", () => {
  const run = { id: "organism-1", config: { checkpoints: [0, 40, 80], steps: 80 } } as unknown as PlannedRun;
  expect(chooseCheckpoints(run, "all")).toEqual([0, 40, 80]);
  expect(chooseCheckpoints(run, " last ")).toEqual([80]);
  expect(chooseCheckpoints(run, "80,80, 0")).toEqual([80, 0]);
  for (const bad of ["", " ", ",", "7", "80,x", "8e1", "0x50", "-0"])
    expect(() => chooseCheckpoints(run, bad)).toThrow(expect.objectContaining({ code: "USAGE" }));
});
