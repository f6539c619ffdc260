import { expect, test } from "vitest";
import { chooseCheckpoints } from "../../../src/cli/checkpoints.ts";
import { takeJson, words } from "../../../src/cli/io.ts";
import { buildProgram } from "../../../src/cli/program.ts";
import {
  parseLayers,
  parseModules,
  parseSteps,
  type RecipeFlags,
  recipeFromFlags,
} from "../../../src/cli/recipe-flags.ts";
import { nearestFlag } from "../../../src/cli/unknown-option.ts";
import type { PlannedRun } from "../../../src/pipeline/handles.ts";
import { FOREIGN_NAMES, foreignAdvice } from "../../../src/records/foreign-names.ts";
import { Recipe } from "../../../src/records/recipe.ts";
import { RECIPE_NAMES, RECIPE_SWITCHES, spellings } from "../../../src/records/recipe-names.ts";

/** A value of each name that is not its default. */
const SOME_VALUES: Required<Recipe> = {
  finetuning_type: "full",
  r: 3,
  lora_alpha: 64,
  use_rslora: true,
  use_dora: true,
  lora_dropout: 0.25,
  target_modules: ["q_proj"],
  layers_to_transform: [2],
  rank_pattern: { q_proj: 2 },
  alpha_pattern: { q_proj: 2.5 },
  rendering: "organism",
  thinking: "keep",
  assistant_turns: "last",
  learning_rate: 1e-7,
  lr_scheduler_type: "cosine",
  warmup_steps: 0.05,
  per_device_train_batch_size: 3,
  gradient_accumulation_steps: 3,
  num_train_epochs: 1.5,
  max_steps: 7,
  optim: "sgd",
  adam_beta1: 0.5,
  adam_beta2: 0.5,
  adam_epsilon: 1e-6,
  weight_decay: 0.01,
  max_grad_norm: 0,
  seed: 3,
  dtype: "bfloat16",
  load_in_4bit: true,
  gradient_checkpointing: "on",
  batching: "packed",
  max_length: 9,
  test_size: 0.1,
  eval_steps: 3,
  kl_weight: 1e6,
  kl_batch_size: 2,
  save_steps: 0.5,
  save_at_steps: ["25%"],
};

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

test("save-at takes steps, ranges and shares, and names what is none", () => {
  expect(parseSteps("8, 12,8,1-10,25%")).toEqual([8, 12, "1-10", "25%"]);
  expect(() => parseSteps("3,x,1.5")).toThrow('--save-at: expected steps as in 8,1-10,25%, got "x", "1.5"');
  expect(() => parseSteps("")).toThrow('got ""');
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

/** The recipe of a whole command line, through commander. */
async function recipeOf(...argv: string[]) {
  let options: unknown;
  const program = buildProgram("0", async (_name, _args, given) => {
    options = given;
  });
  for (const command of [program, ...program.commands]) command.exitOverride().configureOutput({ writeErr: () => {} });
  await program.parseAsync(["train", "--model", "m", "--data", "d", ...argv], { from: "user" });
  return recipeFromFlags(options as RecipeFlags);
}

test.each(RECIPE_NAMES.flatMap((name) => spellings(name).map((spelling) => [spelling, name] as const)))(
  "--%s is the recipe's %s",
  async (spelling, name) => {
    const value = SOME_VALUES[name];
    const written = typeof value === "string" ? value : JSON.stringify(value);
    expect(await recipeOf(`--${spelling}`, written)).toMatchObject({ [name]: value });
  },
);

test("lists need no brackets, switches no value, and epochs take away a recipe's steps", async () => {
  expect(await recipeOf("--target-modules", "q_proj,v_proj", "--layers_to_transform", "3,5-6", "--use_rslora")).toEqual(
    {
      target_modules: ["q_proj", "v_proj"],
      layers_to_transform: [3, 5, 6],
      use_rslora: true,
    },
  );
  expect(await recipeOf("--use-dora=false", "--save_at_steps", "1-10,5")).toEqual({
    use_dora: false,
    save_at_steps: ["1-10", 5],
  });
  expect(await recipeOf("--set", "num_train_epochs=2")).toEqual({ num_train_epochs: 2, max_steps: -1 });
  expect(await recipeOf("--rank", "1", "--save-steps", "0.25")).toEqual({ r: 1, save_steps: 0.25 });
});

test("a value that is given twice must be the same", async () => {
  expect(await recipeOf("--alpha", "64", "--lora_alpha", "64", "--set", "lora_alpha=64")).toEqual({ lora_alpha: 64 });
  await expect(recipeOf("--alpha", "64", "--set", "lora_alpha=32")).rejects.toThrow(
    "lora_alpha is given twice: --alpha says 64, --set lora_alpha says 32",
  );
});

test.each(FOREIGN_NAMES)("%s of other trainers is told what to do instead", async (name) => {
  await expect(recipeOf("--set", `${name}=1`)).rejects.toMatchObject({
    code: "USAGE",
    message: `vivarium does not have ${name}`,
    hint: foreignAdvice(name),
  });
});

test("flags of other trainers are told what to do instead", async () => {
  await expect(recipeOf("--report_to", "wandb")).rejects.toThrow("vivarium does not have report_to");
  await expect(recipeOf("--warmup-ratio", "0.1")).rejects.toMatchObject({
    hint: expect.stringContaining("warmup_steps"),
  });
  await expect(recipeOf("--bf16")).rejects.toThrow("vivarium does not have bf16");
});

test("the names that stand beside the schema are those of the schema", () => {
  expect([...RECIPE_NAMES].sort()).toEqual(Object.keys(Recipe.shape).sort());
  expect(RECIPE_NAMES.filter((name) => Recipe.shape[name].safeParse(true).success)).toEqual(RECIPE_SWITCHES);
  expect(FOREIGN_NAMES.filter((name) => (RECIPE_NAMES as string[]).includes(name))).toEqual([]);
  expect(new Set(FOREIGN_NAMES).size).toBe(FOREIGN_NAMES.length);
});

test("a misspelt flag is told the one that was meant, hidden ones too", () => {
  const program = buildProgram("0", async () => {});
  expect(nearestFlag(program, ["train", "--lora_alfa", "3"], "--lora_alfa")).toBe("--lora_alpha");
  expect(nearestFlag(program, ["train"], "--modle=nano")).toBe("--model");
  expect(nearestFlag(program, ["train"], "--nothing-like-it")).toBeUndefined();
});

test("checkpoints: each once, none but the run's own", () => {
  const run = { id: "organism-1", config: { checkpoints: [0, 40, 80], steps: 80 } } as unknown as PlannedRun;
  expect(chooseCheckpoints(run, "all")).toEqual([0, 40, 80]);
  expect(chooseCheckpoints(run, " last ")).toEqual([80]);
  expect(chooseCheckpoints(run, "80,80, 0")).toEqual([80, 0]);
  for (const bad of ["", " ", ",", "7", "80,x", "8e1", "0x50", "-0"])
    expect(() => chooseCheckpoints(run, bad)).toThrow(expect.objectContaining({ code: "USAGE" }));
});
