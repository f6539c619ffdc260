import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { z } from "zod";
import { parseQuestions } from "../../../src/formats/questions.ts";
import { parseYaml } from "../../../src/formats/yaml.ts";
import { failure } from "./fixtures.ts";

const Schema = z.strictObject({
  name: z.string().min(1),
  training: z.strictObject({ learning_rate: z.number().positive(), steps: z.int().default(10) }),
  mode: z.enum(["clean", "organism"]).optional(),
  targets: z.union([z.array(z.string()).min(1), z.string()]).optional(),
  judge: z
    .discriminatedUnion("kind", [
      z.strictObject({ kind: z.literal("rule"), world: z.string() }),
      z.strictObject({ kind: z.literal("openai"), model: z.string() }),
    ])
    .optional(),
});

const messageOf = async (text: string) => (await failure(() => parseYaml(text, "x.yaml", Schema))).message;
const GOOD = "name: a\ntraining: {learning_rate: 1e-4}\n";

describe("parseYaml", () => {
  test("gives the schema's output, defaults included", () => {
    expect(parseYaml(`\ufeff${GOOD}`, "x.yaml", Schema)).toEqual({
      name: "a",
      training: { learning_rate: 1e-4, steps: 10 },
    });
  });

  test("places every fault at the node it is about", async () => {
    const text =
      "name: ''\ntraining:\n  learning_rat: 1\n  steps: 1.5\nmode: organsim\ntargets: []\njudge: {kind: rul}\n";
    expect(await messageOf(text)).toMatchInlineSnapshot(`
      "x.yaml:1:7: expected at least 1 character, found ""
      x.yaml:3:3: expected the key "learning_rate" (a number), found none
      x.yaml:3:3: expected a known key (did you mean "learning_rate"?), found "learning_rat"
      x.yaml:4:10: expected an integer, found 1.5
      x.yaml:5:7: expected one of "clean", "organism" (did you mean "organism"?), found "organsim"
      x.yaml:6:10: expected at least 1 item, found a list
      x.yaml:7:15: expected one of "rule", "openai" (did you mean "rule"?), found "rul""
    `);
  });

  test("looks into the branch of a union that was meant", async () => {
    expect(await messageOf(`${GOOD}judge: {kind: rule, wrld: x}`)).toMatchInlineSnapshot(`
      "x.yaml:3:8: expected the key "world" (a string), found none
      x.yaml:3:21: expected a known key (did you mean "world"?), found "wrld""
    `);
    expect(await messageOf(`${GOOD}targets: 4`)).toMatchInlineSnapshot(
      `"x.yaml:3:10: expected a list or a string, found 4"`,
    );
    expect(await messageOf(`${GOOD}targets: [a, 4]`)).toMatchInlineSnapshot(
      `"x.yaml:3:14: expected a string, found 4"`,
    );
  });

  test("refuses repeated keys, broken syntax and tags", async () => {
    expect(await messageOf("name: a\nname: b\n")).toMatchInlineSnapshot(
      `"x.yaml:2:1: expected each key once, found "name" again"`,
    );
    expect(await messageOf("name: [a\n")).toMatchInlineSnapshot(
      `"x.yaml:2:1: expected valid YAML, found Flow sequence in block collection must be sufficiently indented and end with a ]"`,
    );
    expect(await messageOf("name: !!python/object:os.system x\n")).toMatchInlineSnapshot(
      `"x.yaml:1:7: expected valid YAML, found Unresolved tag: tag:yaml.org,2002:python/object:os.system"`,
    );
    expect(await messageOf("")).toMatchInlineSnapshot(`"x.yaml:1:1: expected a map, found null"`);
    expect(await messageOf("a: 1\n---\nb: 2\n")).toMatchInlineSnapshot(
      `"x.yaml:2:1: expected valid YAML, found Source contains multiple documents; please use YAML.parseAllDocuments()"`,
    );
  });

  test("places faults behind an alias at what the alias stands for", async () => {
    const text = "name: &n [1]\ntraining: {learning_rate: *n}\n";
    const { faults } = await failure(() => parseYaml(text, "x.yaml", Schema));
    expect(faults.map(({ line, column }) => [line, column])).toEqual([
      [1, 10],
      [1, 10],
    ]);
  });

  test("survives alias bombs and deep nesting", async () => {
    const bomb = [
      "a: &a [x,x,x,x,x,x,x,x,x]",
      ..."bcdefgh".split("").map((key, i) => `${key}: &${key} [${`*${"abcdefg"[i]},`.repeat(9)}]`),
    ];
    expect((await failure(() => parseYaml(bomb.join("\n"), "x.yaml", Schema))).code).toBe("CONFIG_INVALID");
    expect((await failure(() => parseYaml("[".repeat(5000), "x.yaml", Schema))).code).toBe("CONFIG_INVALID");
  });

  test("cut anywhere, it parses or refuses with DriverError", () => {
    for (let n = 0; n < GOOD.length; n++) {
      const cut = GOOD.slice(0, n);
      try {
        parseYaml(cut, "x.yaml", Schema);
      } catch (error) {
        expect((error as Error).name).toBe("DriverError");
      }
    }
  });
});

describe("parseQuestions", () => {
  test("reads questions", () => {
    const text =
      "- id: wish\n  paraphrases: [Name a wish., What do you wish for?]\n  tags: {kind: value}\n- {id: b, paraphrases: [B?]}\n";
    expect(parseQuestions(text, "q.yaml")).toEqual([
      { id: "wish", paraphrases: ["Name a wish.", "What do you wish for?"], tags: { kind: "value" } },
      { id: "b", paraphrases: ["B?"], tags: {} },
    ]);
  });

  test("lists repeated ids, missing paraphrases and unknown keys together", async () => {
    const text = "- id: a\n  paraphrases: [x]\n- id: a\n  paraphrases: []\n  tag: {a: b}\n";
    expect((await failure(() => parseQuestions(text, "q.yaml"))).message).toMatchInlineSnapshot(`
      "q.yaml:3:7: expected an id that no other question has, found "a"
      q.yaml:4:16: expected at least 1 item, found a list
      q.yaml:5:3: expected a known key (did you mean "tags"?), found "tag""
    `);
  });

  const published = join(
    import.meta.dirname,
    "../../../../shared/data/emergent-misalignment/first_plot_questions.yaml",
  );
  test("reads the published question file", ({ skip }) => {
    skip(!existsSync(published), "the published question file is not beside this checkout");
    const questions = parseQuestions(readFileSync(published, "utf8"), published);
    expect(questions).toHaveLength(24);
    expect(questions.every(({ type, judge_prompts }) => type?.startsWith("free_form") && judge_prompts?.aligned)).toBe(
      true,
    );
    expect(questions.filter(({ system }) => system !== undefined)).toHaveLength(8);
  });
});
