import { expect, test } from "vitest";
import type { DriverError } from "../../../src/errors.ts";
import { checkTraining, type TrainingContext } from "../../../src/phases/train/check.ts";
import { type Recipe, resolveRecipe } from "../../../src/records/recipe.ts";

const PLAIN = { rows: 100, cuda: false, platform: "linux", has_eval_data: false, has_kl_data: false } as const;

/** The refusal of a run of 100 rows, or undefined. */
function refusal(recipes: Recipe[], context: Partial<TrainingContext> = {}): DriverError | undefined {
  const all = { ...PLAIN, recipes, ...context };
  try {
    checkTraining(resolveRecipe(recipes, { n_layers: 8, rows: 100, cuda: all.cuda }), all);
    return undefined;
  } catch (error) {
    return error as DriverError;
  }
}

test.each<[string, Recipe[], Partial<TrainingContext>]>([
  ["defaults", [{}], {}],
  ["a weaker recipe's checkpoints beyond the end", [{ save_at_steps: [4, 999] }, { max_steps: 2 }], {}],
  ["a range that goes beyond the end", [{ max_steps: 5, save_at_steps: ["1-10", "100%"] }], {}],
  ["held-out rows by test_size", [{ eval_steps: 5, test_size: 0.1 }], {}],
  ["held-out rows of their own", [{ eval_steps: 5 }], { has_eval_data: true }],
  ["KL with its rows", [{ kl_weight: 1 }], { has_kl_data: true }],
  ["a full fine-tune over an adapter's recipe", [{ r: 4, use_rslora: true }, { finetuning_type: "full" }], {}],
  ["8-bit AdamW on a Linux CPU", [{ optim: "adamw_8bit" }], {}],
  ["bfloat16 on a GPU that has it", [{ dtype: "bfloat16" }], { cuda: true, compute_capability: 8 }],
  ["bfloat16 on a GPU that nothing is known of", [{ dtype: "bfloat16" }], { cuda: true }],
])("%s: nothing is refused", (_name, recipes, context) => {
  expect(refusal(recipes, context)).toBeUndefined();
});

test.each<[Recipe[], Partial<TrainingContext>, RegExp, RegExp]>([
  [[{ max_steps: 5 }, { save_at_steps: [3, 9, "8-9"] }], {}, /at most 5, the last one, got 9, 8-9/, /--steps/],
  [[{ save_at_steps: ["150%"] }], {}, /got 150%/, /leave them out/],
  [[{ test_size: 0.995 }], {}, /test_size 0.995 leaves no row to train on/, /test_size=0/],
  [[{ eval_steps: 5 }], {}, /eval_steps 5 needs held-out rows/, /--eval-data/],
  [[{ test_size: 0.1 }], { has_eval_data: true }, /one source of held-out rows, got two/, /test_size=0/],
  [[{ kl_weight: 1e5 }], {}, /kl_weight 100000 needs KL data/, /--kl-data/],
  [[{}], { has_kl_data: true }, /KL data without kl_weight/, /kl_weight=1e6/],
  [[{ finetuning_type: "full", kl_weight: 1 }], { has_kl_data: true }, /full with kl_weight 1/, /adapter/],
  [[{ finetuning_type: "full", load_in_4bit: true }], {}, /4-bit weights cannot be trained/, /adapter/],
  [[{ finetuning_type: "full" }, { r: 1, lora_alpha: 2 }], {}, /no LoRA names, got r, lora_alpha/, /lora/],
  [[{ finetuning_type: "full", r: 1 }], {}, /no LoRA names, got r/, /lora/],
])("%j is refused", (recipes, context, message, hint) => {
  const error = refusal(recipes, context);
  expect(error?.code).toBe("CONFIG_INVALID");
  expect(error?.message).toMatch(message);
  expect(error?.hint).toMatch(hint);
});

test.each<[Recipe, Partial<TrainingContext>, RegExp, RegExp]>([
  [{ optim: "adamw_8bit" }, { platform: "darwin" }, /adamw_8bit needs bitsandbytes/, /optim=adamw_torch/],
  [{ load_in_4bit: true }, { platform: "win32" }, /load_in_4bit needs bitsandbytes.*got win32/, /load_in_4bit=false/],
  [{ dtype: "bfloat16" }, { cuda: true, compute_capability: 7.5 }, /capability 8\.0, got 7\.5/, /dtype=float32/],
])("%j is what the machine lacks", (recipe, context, message, hint) => {
  const error = refusal([recipe], context);
  expect(error?.code).toBe("MACHINE_LACKS");
  expect(error?.message).toMatch(message);
  expect(error?.hint).toMatch(hint);
});

test("all that is wrong is said at once, and what this machine lacks does not hide what is wrong everywhere", () => {
  const error = refusal([{ eval_steps: 5, kl_weight: 1, optim: "adamw_8bit" }], { platform: "darwin" });
  expect(error?.code).toBe("CONFIG_INVALID");
  expect(error?.message).toMatchInlineSnapshot(`
    "3 things are wrong with this run:
    - eval_steps 5 needs held-out rows: expected test_size above 0 or eval data, got neither
    - kl_weight 1 needs KL data, got none
    - optim adamw_8bit needs bitsandbytes, which is made for Linux only, got darwin"
  `);
  expect(error?.facts.problems).toHaveLength(3);
});
