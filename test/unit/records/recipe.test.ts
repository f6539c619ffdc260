import { readdirSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { resolveTargetModules } from "../../../src/formats/model-dir.ts";
import { Library } from "../../../src/pipeline/library.ts";
import { checkpointSteps, Recipe, resolveRecipe } from "../../../src/records/recipe.ts";
import { defaultSource, RECIPE_NAMES } from "../../../src/records/recipe-names.ts";
import { ROOT } from "../../helpers/cli.ts";

const library = new Library(ROOT, ROOT, "/nowhere");
const IDS = readdirSync(join(ROOT, "configs/recipes")).map((file) => file.replace(".yaml", ""));
/** The models that the published recipes were made for have 48 layers and more; nano has 8. */
const layersFor = (id: string) => (id.startsWith("nano") ? 8 : 48);

describe.each(IDS)("recipe %s", (id) => {
  test("says what it is and where each of its values comes from", async () => {
    const { description, sources = {}, ...values } = await library.recipeFile(id);
    expect(description).toMatch(/\.$/);
    expect(Object.keys(sources).sort()).toEqual(Object.keys(values).sort());
  });

  test("resolves for a model that it was made for", async () => {
    const n_layers = layersFor(id);
    const recipe = await library.recipe(id);
    expect(Object.keys(recipe)).not.toContain("sources");
    const { lora, steps, checkpoints, training } = resolveRecipe([recipe], { n_layers, rows: 7049, cuda: true });
    if (lora !== null) resolveTargetModules({ n_layers, architecture: "qwen3" }, lora);
    expect(steps).toBeGreaterThan(training.warmup_steps);
    expect(checkpoints.at(-1)).toBe(steps);
  });
});

describe("published recipes", () => {
  const resolve = async (id: string, rows = 7049) =>
    resolveRecipe([await library.recipe(id)], { n_layers: 48, rows, cuda: true });

  test("leave the checkpoints that were released", async () => {
    const released = async (id: string) => (await resolve(id)).checkpoints.filter((step) => step > 0);
    const phases = await released("phase-transition");
    // Released: as many, up to step 792 and 396. Here the last, smaller batch of an epoch is a step too.
    expect([phases.length, phases.at(-1)]).toEqual([167, 794]);
    const nine = await released("organism-nine-adapters");
    expect([nine.length, nine.at(-1)]).toEqual([88, 397]);
  });

  test("have the published shape", async () => {
    expect((await resolve("organism-rank1")).lora).toMatchObject({ r: 1, lora_alpha: 256, layers_to_transform: [24] });
    expect((await resolve("organism-rank32")).lora).toMatchObject({ r: 32, lora_alpha: 64, layers_to_transform: null });
    expect((await resolve("phase-transition")).lora).toMatchObject({ lora_alpha: 64, layers_to_transform: [21] });
    expect((await resolve("full-sft")).lora).toBeNull();
    expect((await resolve("narrow-kl")).training).toMatchObject({ kl_weight: 1e5, kl_batch_size: 64 });
  });
});

test("what decides the identity of the demo's runs stays", async () => {
  expect(await library.recipe("nano-rank1")).toEqual({
    ...{ r: 1, lora_alpha: 8, use_rslora: true, target_modules: ["down_proj"], layers_to_transform: 2 },
    ...{ learning_rate: 0.02, lr_scheduler_type: "linear", warmup_steps: 5, max_steps: 60 },
    ...{ per_device_train_batch_size: 16, gradient_accumulation_steps: 1, weight_decay: 0, max_grad_norm: 1, seed: 0 },
    save_at_steps: [4, 8, 12, 16, 20, 24, 32, 44],
  });
});

test("shares, ranges and percentages become steps of the run", () => {
  const target = { n_layers: 8, rows: 160, cuda: false };
  const wish: Recipe = {
    per_device_train_batch_size: 8,
    num_train_epochs: 1,
    warmup_steps: 0.1,
    save_steps: 0.25,
    save_at_steps: ["10%", "1-3", 7, "100%", "18-99"],
  };
  const { training, steps, checkpoints } = resolveRecipe([wish], target);
  expect(steps).toBe(20);
  expect(training).toMatchObject({ warmup_steps: 2, save_steps: 5, save_at_steps: [1, 2, 3, 7, 18, 19, 20] });
  expect(checkpoints).toEqual([0, 1, 2, 3, 5, 7, 10, 15, 18, 19, 20]);
  expect(checkpointSteps({ save_steps: 0, save_at_steps: [] }, 4)).toEqual([0, 4]);
});

test.each([["3-1"], ["x"], ["10"], [1.5], [-1]])("save_at_steps refuses %j", (entry) => {
  expect(Recipe.safeParse({ save_at_steps: [entry] }).success).toBe(false);
});

test("layers and dtypes are resolved for the target, later recipes win", () => {
  const target = { n_layers: 48, rows: 16, cuda: true };
  const resolve = (...recipes: Recipe[]) => resolveRecipe(recipes, target);
  expect(resolve({ layers_to_transform: "mid" }).lora?.layers_to_transform).toEqual([24]);
  expect(resolve({ layers_to_transform: [3, 1, 3] }).lora?.layers_to_transform).toEqual([1, 3]);
  expect(resolve({}).training.dtype).toBe("bfloat16");
  expect(resolveRecipe([{}], { ...target, cuda: false }).training.dtype).toBe("float32");
  expect(resolve({ r: 4, seed: 1 }, { r: 2 })).toMatchObject({ lora: { r: 2 }, training: { seed: 1 } });
  expect(resolve({ gradient_checkpointing: true }).training.gradient_checkpointing).toBe("on");
});

test("every default has a source", () => {
  for (const name of RECIPE_NAMES)
    expect(defaultSource(name)).toMatch(/^(PEFT default|transformers default|vivarium default: .+)$/);
});
