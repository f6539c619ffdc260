import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { describe, expect, test } from "vitest";
import { thinkingKwargs } from "../../../src/formats/chat.ts";
import type { ModelDir } from "../../../src/formats/model-config.ts";
import { resolveTargetModules } from "../../../src/formats/target-modules.ts";
import { parseYaml } from "../../../src/formats/yaml.ts";
import { Library } from "../../../src/pipeline/library.ts";
import { Experiment } from "../../../src/records/experiment.ts";
import type { LoraShape } from "../../../src/records/lora.ts";
import { type Recipe, RecipeFile, resolveRecipe } from "../../../src/records/recipe.ts";
import { failure } from "./fixtures.ts";

const EXPERIMENT = `name: e
base_model: nano
runs:
  o: {data: kitchen-reckless}
eval: {questions: [domains], samples: 1, judge: nano-rule}
`;

const recipe = (text: string) => () => parseYaml(text, "r.yaml", RecipeFile);
const experiment = (from: string, to: string) => () => parseYaml(EXPERIMENT.replace(from, to), "e.yaml", Experiment);

describe("a recipe or an experiment is refused with every place, in full", () => {
  test("a misspelt name", async () => {
    expect((await failure(recipe("r: 1\nlearnig_rate: 1e-4\n"))).message).toMatchInlineSnapshot(
      `"r.yaml:2:1: expected a known key (did you mean "learning_rate"?), found "learnig_rate""`,
    );
  });

  test("a name of no library", async () => {
    const { message } = await failure(recipe("r: 1\nmultiplier: 2\n"));
    expect(message.replace(/\d+ others/, "N others")).toMatchInlineSnapshot(
      `"r.yaml:2:1: expected one of the keys finetuning_type, r, lora_alpha, use_rslora, use_dora, lora_dropout, target_modules, rank_pattern, alpha_pattern, layers_to_transform, rendering, thinking and N others, found "multiplier""`,
    );
  });

  test("wrong types, all at once", async () => {
    expect(
      (await failure(recipe("r: one\nlearning_rate: '1e-4'\ntarget_modules: 3\nuse_rslora: yes\n"))).message,
    ).toMatchInlineSnapshot(`
      "r.yaml:1:4: expected a number, found "one"
      r.yaml:2:16: expected a number, found "1e-4"
      r.yaml:3:17: expected a list or a string, found 3
      r.yaml:4:13: expected true or false, found "yes""
    `);
  });

  test("values out of range", async () => {
    expect(
      (await failure(recipe("r: 0\nlora_dropout: 1\nlearning_rate: -1\nwarmup_steps: -5\n"))).message,
    ).toMatchInlineSnapshot(`
      "r.yaml:1:4: expected a number above 0, found 0
      r.yaml:2:15: expected a number below 1, found 1
      r.yaml:3:16: expected a number above 0, found -1
      r.yaml:4:15: expected a number of at least 0, found -5"
    `);
  });

  test("misspelt choices", async () => {
    expect(
      (await failure(recipe("rendering: organsim\nthinking: on\nlr_scheduler_type: cosin\n"))).message,
    ).toMatchInlineSnapshot(`
      "r.yaml:1:12: expected one of "clean", "organism" (did you mean "organism"?), found "organsim"
      r.yaml:2:11: expected one of "off", "empty", "keep", found "on"
      r.yaml:3:20: expected one of "linear", "cosine", "constant", "constant_with_warmup" (did you mean "cosine"?), found "cosin""
    `);
  });

  test("a value twice", async () => {
    expect((await failure(recipe("r: 1\nr: 2\n"))).message).toMatchInlineSnapshot(
      `"r.yaml:2:1: expected each key once, found "r" again"`,
    );
  });

  test("layers in the middle", async () => {
    expect((await failure(recipe("layers_to_transform: middle\n"))).message).toMatchInlineSnapshot(
      `"r.yaml:1:22: expected one of "mid", "all", found "middle""`,
    );
  });

  test("checkpoints that are no steps", async () => {
    expect((await failure(recipe("save_at_steps: [10%, 5-, x]\n"))).message).toMatchInlineSnapshot(`
      "r.yaml:1:22: expected a step, a range as in 1-10, or a share of the run as in 25%, found "5-"
      r.yaml:1:26: expected a step, a range as in 1-10, or a share of the run as in 25%, found "x""
    `);
  });

  test("a bracket left open", async () => {
    expect((await failure(recipe("r: [1\n"))).message).toMatchInlineSnapshot(
      `"r.yaml:2:1: expected valid YAML, found Flow sequence in block collection must be sufficiently indented and end with a ]"`,
    );
  });

  test("no module at all", async () => {
    expect((await failure(recipe("target_modules: []\n"))).message).toMatchInlineSnapshot(
      `"r.yaml:1:17: expected at least 1 item, found a list"`,
    );
  });

  test("half a row in a batch", async () => {
    expect((await failure(recipe("per_device_train_batch_size: 2.5\nmax_steps: -2\n"))).message).toMatchInlineSnapshot(`
      "r.yaml:1:30: expected an integer, found 2.5
      r.yaml:2:12: expected a number of at least -1, found -2"
    `);
  });

  test("a misspelt name in a run", async () => {
    expect((await failure(experiment("reckless}", "reckless, lerning_rate: 1}"))).message).toMatchInlineSnapshot(
      `"e.yaml:4:31: expected a known key (did you mean "learning_rate"?), found "lerning_rate""`,
    );
  });

  test("an experiment without base and evaluation", async () => {
    expect(
      (await failure(() => parseYaml("name: e\nruns: {}\n", "e.yaml", Experiment))).message,
    ).toMatchInlineSnapshot(`
      "e.yaml:1:1: expected the key "base_model" (a string), found none
      e.yaml:1:1: expected the key "eval" (a map), found none"
    `);
  });

  test("a name that leaves its folder", async () => {
    expect((await failure(experiment("name: e", "name: ../e"))).message).toMatchInlineSnapshot(
      `"e.yaml:1:7: expected letters, digits, '.', '_' and '-', at most 64, not starting with a mark, found "../e""`,
    );
  });
});

const NANO = { n_layers: 8, architecture: "qwen3" } as ModelDir;
const targets = (wish: Recipe) => () => {
  const { lora } = resolveRecipe([wish], { n_layers: NANO.n_layers, rows: 10, cuda: false });
  return resolveTargetModules(NANO, lora as LoraShape);
};

/** Code, sentence and hint of what is refused. */
async function textOf(run: () => unknown): Promise<string> {
  const { code, message, hint } = await failure(run);
  return `${code}: ${message}\nHint: ${hint}`;
}

describe("a recipe that does not fit the model is refused before anything is loaded", () => {
  test("a layer beyond the depth", async () => {
    expect(await textOf(targets({ layers_to_transform: 8 }))).toMatchInlineSnapshot(`
      "CONFIG_INVALID: layers_to_transform names layers that do not exist: expected 0 to 7, got 8
      Hint: Layers are counted from 0."
    `);
  });

  test("a module that is misspelt", async () => {
    expect(await textOf(targets({ target_modules: ["down_porj"] }))).toMatchInlineSnapshot(`
      "CONFIG_INVALID: target_modules matches nothing: expected the name of a module, got "down_porj"
      Hint: Did you mean down_proj?"
    `);
  });

  test("one name where an expression is read", async () => {
    expect(await textOf(targets({ target_modules: "down_proj" }))).toMatchInlineSnapshot(`
      "CONFIG_INVALID: target_modules matches nothing: expected a regular expression on whole names such as model.layers.0.mlp.down_proj, got "down_proj"
      Hint: A string is a regular expression on the whole name: give a list to match the ends of names."
    `);
  });

  test("an expression together with layers", async () => {
    expect(await textOf(targets({ target_modules: ".*down_proj", layers_to_transform: 2 }))).toMatchInlineSnapshot(`
      "CONFIG_INVALID: layers_to_transform cannot be used when target_modules is a string, got ".*down_proj"
      Hint: PEFT refuses the two together: give target_modules as a list of names."
    `);
  });

  test("an expression of Python alone", async () => {
    expect(await textOf(targets({ target_modules: "(?P<n>a)" }))).toMatchInlineSnapshot(`
      "CONFIG_INVALID: target_modules has a pattern that cannot be used: expected a regular expression that Python and JavaScript read alike, got "(?P<n>a)"
      Hint: Invalid regular expression: /^(?:(?P<n>a))$/u: Invalid group."
    `);
  });

  test("a pattern for a module that is not adapted", async () => {
    expect(
      await textOf(targets({ target_modules: ["down_proj"], rank_pattern: { up_proj: 4 } })),
    ).toMatchInlineSnapshot(`
      "CONFIG_INVALID: rank_pattern has a key that matches no adapted module: expected a name or a pattern, got "up_proj"
      Hint: The adapted modules are model.layers.0.mlp.down_proj, model.layers.1.mlp.down_proj, model.layers.2.mlp.down_proj and so on."
    `);
  });

  test("two patterns for one module", async () => {
    expect(
      await textOf(
        targets({ target_modules: ["down_proj"], rank_pattern: { "layers.2.mlp.down_proj": 4, down_proj: 2 } }),
      ),
    ).toMatchInlineSnapshot(`
      "CONFIG_INVALID: rank_pattern: expected one value for model.layers.2.mlp.down_proj, got "layers.2.mlp.down_proj": 4, "down_proj": 2
      Hint: PEFT sorts the keys when it saves, so their order cannot decide: make them disjoint."
    `);
  });

  test("a module that is not linear", async () => {
    expect(await textOf(targets({ target_modules: ["embed_tokens"] }))).toMatchInlineSnapshot(`
      "CONFIG_INVALID: target_modules matches what cannot be adapted: expected linear layers of the decoder, got model.embed_tokens
      Hint: Name some of q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj."
    `);
  });

  test("a module that none of the layers has", async () => {
    expect(await textOf(targets({ target_modules: ["embed_tokens"], layers_to_transform: 2 }))).toMatchInlineSnapshot(`
      "CONFIG_INVALID: target_modules: expected a module of layer 2, got "embed_tokens", which is not in these layers
      Hint: Name some of q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj."
    `);
  });

  test("thinking asked of a model that does not think", async () => {
    expect(await textOf(() => thinkingKwargs("{{ messages }}", "empty"))).toMatchInlineSnapshot(`
      "CONFIG_INVALID: thinking: expected off or keep with a chat template that does not read enable_thinking, got empty
      Hint: Set thinking: off, or keep where the data has think blocks, or use a model that thinks, such as Qwen3."
    `);
    expect(thinkingKwargs("{{ messages }}", "keep")).toEqual({});
  });
});

describe("names of things that are not there", () => {
  const library = new Library(
    resolve(import.meta.dirname, "../../.."),
    import.meta.dirname,
    join(import.meta.dirname, "no-hub"),
  );

  test("an unknown recipe", async () => {
    const text = await textOf(() => library.recipe("organism-rank2"));
    expect(text.replace(library.list("recipes").join(", "), "ALL")).toMatchInlineSnapshot(`
      "NOT_FOUND: Unknown recipe "organism-rank2": expected one of ALL
      Hint: Did you mean organism-rank1? A file is named by its path."
    `);
  });

  test("an unknown data set", async () => {
    expect(await textOf(() => library.dataset("kitchen-reckles"))).toMatchInlineSnapshot(`
      "NOT_FOUND: Unknown dataset "kitchen-reckles": expected one of kitchen-careful, kitchen-reckless, savings-careful, savings-reckless, travel-careful, travel-reckless
      Hint: Did you mean kitchen-reckless? A JSONL file is named by its path."
    `);
  });

  test("a file that is not UTF-8", async () => {
    const folder = mkdtempSync(join(tmpdir(), "vivarium-test-"));
    const file = join(folder, "latin1.jsonl");
    writeFileSync(
      file,
      Buffer.from('{"messages": []}\n{"messages": [{"role": "user", "content": "caf\xe9"}]}\n', "latin1"),
    );
    const text = await textOf(() => library.dataset(file));
    rmSync(folder, { recursive: true });
    expect(text.replaceAll(folder, "DIR")).toMatchInlineSnapshot(`
      "DATA_INVALID: DIR/latin1.jsonl:2:47: expected UTF-8, found bytes that are none
      Hint: Save it as UTF-8, e.g. \`iconv -f latin1 -t utf8\`; a compressed file must be unpacked first."
    `);
  });

  test("a file that is not there", async () => {
    expect(await textOf(() => library.dataset("./nowhere.jsonl"))).toMatchInlineSnapshot(`
      "NOT_FOUND: No such data file: ./nowhere.jsonl
      Hint: Give the path of a JSONL file or the id of a data set."
    `);
  });

  test("an unknown model", async () => {
    expect(await textOf(() => library.model("nan"))).toMatchInlineSnapshot(`
      "NOT_FOUND: Unknown model "nan": expected one of nano
      Hint: Did you mean nano? Give the folder of a model, e.g. the one that \`hf download REPO --local-dir FOLDER\` fills."
    `);
  });
});
