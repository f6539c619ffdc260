import { describe, expect, test } from "vitest";
import { linearModules, resolveTargetModules } from "../../../src/formats/model-dir.ts";
import { failure } from "./fixtures.ts";

const MODEL = { n_layers: 4, architecture: "qwen3" } as const;
const lora = (target_modules: string | string[], more: Record<string, unknown> = {}) => ({
  ...{ target_modules, layers_to_transform: null, rank_pattern: {}, alpha_pattern: {} },
  ...more,
});
const resolved = (...args: Parameters<typeof lora>) => resolveTargetModules(MODEL, lora(...args));
const refusal = async (...args: Parameters<typeof lora>) => {
  const error = await failure(() => resolved(...args));
  expect(error.code).toBe("CONFIG_INVALID");
  return `${error.message} | ${error.hint}`;
};

describe("what PEFT would adapt", () => {
  test("a list matches whole names and ends of names", () => {
    expect(resolved(["down_proj"], { layers_to_transform: [2] })).toEqual(["model.layers.2.mlp.down_proj"]);
    expect(resolved(["self_attn.v_proj", "model.layers.1.mlp.up_proj"], { layers_to_transform: [0, 3] })).toEqual([
      "model.layers.0.self_attn.v_proj",
      // Given by its full name, so layers_to_transform does not apply.
      "model.layers.1.mlp.up_proj",
      "model.layers.3.self_attn.v_proj",
    ]);
    expect(resolved(["q_proj", "k_proj"])).toHaveLength(8);
  });

  test("a string is a regular expression on the whole name, or all-linear", () => {
    expect(resolved("All-Linear")).toEqual(linearModules(MODEL));
    expect(resolved("all-linear")).toHaveLength(28);
    expect(resolved(".*\\.[01]\\.mlp\\.(gate|up)_proj")).toHaveLength(4);
  });

  test("patterns must match and must not disagree", async () => {
    expect(
      resolved(["q_proj"], { rank_pattern: { "layers.1.self_attn.q_proj": 4 }, alpha_pattern: { ".*q_proj": 8 } }),
    ).toHaveLength(4);
    expect(await refusal(["q_proj"], { rank_pattern: { down_proj: 4 } })).toMatchInlineSnapshot(
      `"rank_pattern has a key that matches no adapted module: expected a name or a pattern, got "down_proj" | The adapted modules are model.layers.0.self_attn.q_proj, model.layers.1.self_attn.q_proj, model.layers.2.self_attn.q_proj and so on."`,
    );
    expect(await refusal(["q_proj"], { alpha_pattern: { q_proj: 4, "layers.1.*": 8 } })).toMatchInlineSnapshot(
      `"alpha_pattern: expected one value for model.layers.1.self_attn.q_proj, got "q_proj": 4, "layers.1.*": 8 | PEFT sorts the keys when it saves, so their order cannot decide: make them disjoint."`,
    );
  });
});

describe("what is refused", () => {
  test("names that match nothing, with the nearest", async () => {
    expect(await refusal(["q_proj", "down_prj"])).toMatchInlineSnapshot(
      `"target_modules matches nothing: expected the name of a module, got "down_prj" | Did you mean down_proj?"`,
    );
    expect(await refusal(["roj"])).toMatchInlineSnapshot(
      `"target_modules matches nothing: expected the name of a module, got "roj" | Name some of q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj."`,
    );
    expect(await refusal("q_proj")).toMatchInlineSnapshot(
      `"target_modules matches nothing: expected a regular expression on whole names such as model.layers.0.mlp.down_proj, got "q_proj" | A string is a regular expression on the whole name: give a list to match the ends of names."`,
    );
  });

  test("layers that do not exist", async () => {
    expect(await refusal(["q_proj"], { layers_to_transform: [3, 4, 24] })).toMatchInlineSnapshot(
      `"layers_to_transform names layers that do not exist: expected 0 to 3, got 4, 24 | Layers are counted from 0."`,
    );
  });

  test("modules that llama.cpp cannot adapt", async () => {
    expect(await refusal(["q_proj", "lm_head"])).toMatchInlineSnapshot(
      `"target_modules matches what cannot be adapted: expected linear layers of the decoder, got lm_head | Name some of q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj."`,
    );
    expect(await refusal(["embed_tokens"])).toContain("got model.embed_tokens");
    expect(await refusal(["mlp"])).toContain("got model.layers.0.mlp, model.layers.1.mlp, model.layers.2.mlp");
    expect(await refusal(".*")).toContain("got the whole model");
  });

  test("what PEFT refuses too: layers with a string", async () => {
    expect(await refusal("all-linear", { layers_to_transform: [1] })).toMatchInlineSnapshot(
      `"layers_to_transform cannot be used when target_modules is a string, got "all-linear" | PEFT refuses the two together: give target_modules as a list of names."`,
    );
  });

  test("patterns that Python and JavaScript read differently", async () => {
    for (const pattern of ["(?P<x>.*)q_proj", "(?i)Q_PROJ", ".*q_proj\\Z", "(q_proj"]) {
      expect(await refusal(pattern)).toContain("expected a regular expression that Python and JavaScript read alike");
    }
  });
});
