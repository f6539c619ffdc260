import { expect, test } from "vitest";
import { list, show } from "../../../src/cli/commands/recipe.ts";
import type { Io } from "../../../src/cli/io.ts";
import { RECIPE_NAMES } from "../../../src/records/recipe-names.ts";

/** What a command says and returns. */
async function told<T>(command: (io: Io) => Promise<T>) {
  const lines: string[] = [];
  const say = (line: string) => lines.push(line);
  const result = await command({ options: {}, signal: new AbortController().signal, say, note: say } as unknown as Io);
  return { text: lines.join("\n"), result: result as Record<string, never> };
}

const shown = (name: string, flags: { model?: string; data?: string; set?: string[] } = {}) =>
  told((io) => show([[name]], { set: [], ...flags }, io));

test("list has every recipe with the first sentence of what it is", async () => {
  const { text, result } = await told((io) => list([], {}, io));
  expect(text).toMatch(/^organism-rank1 +The rank-1 organism of .*\.$/m);
  expect(result.recipes).toContainEqual(expect.objectContaining({ id: "nano-rank1" }));
});

test("show has every value with its source", async () => {
  const { text, result } = await shown("organism-rank1", { set: ["weight_decay=0.5"] });
  expect(Object.keys(result.values ?? {})).toEqual(RECIPE_NAMES);
  for (const name of RECIPE_NAMES) expect(text).toMatch(new RegExp(`^  ${name} `, "m"));
  expect(text).toMatch(/^ {2}lora_alpha +256 +arXiv 2506\.11613 section 3\.5.*512$/m);
  expect(text).toMatch(/^ {2}weight_decay +0\.5 +--set$/m);
  expect(text).toMatch(/^ {2}adam_beta1 +0\.9 +transformers default$/m);
  expect(text).toMatch(/^ {2}rank_pattern +none +PEFT default$/m);
  expect(text).toMatch(/^ {2}layers_to_transform +mid +/m);
  expect(result).toMatchObject({ steps: null, checkpoints: null });
});

test("a model and a data set resolve what depends on them", async () => {
  const flags = { model: "nano", data: "kitchen-reckless", set: ["save_at_steps=[50%]"] };
  const { text, result } = await shown("organism-rank1", flags);
  expect(text).toMatch(/^ {2}layers_to_transform +4 \(mid\) /m);
  expect(text).toMatch(/^ {2}save_at_steps +12 \(50%\) +--set$/m);
  expect(text).toContain("nano: 8 layers, 1 adapted module, the first model.layers.4.mlp.down_proj");
  expect(text).toContain("kitchen-reckless: 400 rows, 23 steps, checkpoints 0, 12, 23");
  expect(result).toMatchObject({ steps: 23, checkpoints: [0, 12, 23] });
});

test("a layer that the model does not have is refused, and an unknown recipe is told the nearest", async () => {
  await expect(shown("phase-transition", { model: "nano" })).rejects.toThrow(/expected 0 to 7, got 21/);
  await expect(shown("organism-rank2")).rejects.toMatchObject({ hint: expect.stringMatching(/organism-rank(1|32)/) });
  expect((await shown("full-sft", { model: "nano" })).text).toContain("all weights are trained");
});
