import { mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { adapterScales, convertAdapter, readAdapterGguf } from "../../../../src/formats/gguf/adapter.ts";
import { convertBase } from "../../../../src/formats/gguf/base.ts";
import { readGguf } from "../../../../src/formats/gguf/read.ts";
import { openModelDir } from "../../../../src/formats/model-dir.ts";
import { type TensorData, writeSafetensors } from "../../../../src/formats/safetensors.ts";
import { f32, failure, tempDir, withoutDir, writeJson, writeModel } from "../fixtures.ts";

const CONFIG = {
  ...{
    peft_type: "LORA",
    task_type: "CAUSAL_LM",
    peft_version: "0.21.2",
    base_model_name_or_path: "x",
    inference_mode: true,
  },
  ...{ r: 2, lora_alpha: 3, use_rslora: false, rank_pattern: {}, alpha_pattern: {}, bias: "none", lora_dropout: 0.1 },
  ...{ target_modules: ["down_proj"], modules_to_save: null, use_dora: false, lora_bias: false, fan_in_fan_out: false },
  ...{ init_lora_weights: true, loftq_config: {}, megatron_core: "megatron.core", qalora_group_size: 16 },
};
const DOWN_1 = "model.layers.1.mlp.down_proj";
const UP_0 = "model.layers.0.mlp.up_proj";
const key = (module: string, side: "A" | "B") => `base_model.model.${module}.lora_${side}.weight`;

/** The weights of one module: A is [r, n_in], B is [n_out, r]. */
const pair = (module: string, r: number, n_in: number, n_out: number): Record<string, TensorData> => ({
  [key(module, "A")]: f32([r, n_in]),
  [key(module, "B")]: f32([n_out, r], (i) => Math.cos(i)),
});

function writeAdapter(dir: string, config: Record<string, unknown>, tensors: Record<string, TensorData>): string {
  mkdirSync(dir, { recursive: true });
  writeJson(join(dir, "adapter_config.json"), { ...CONFIG, ...config });
  writeSafetensors(join(dir, "adapter_model.safetensors"), tensors);
  return dir;
}

/** Code and problems of the refusal. */
async function refusal(
  config: Record<string, unknown>,
  tensors: Record<string, TensorData>,
): Promise<[string, string[]]> {
  using dir = tempDir();
  const adapter = writeAdapter(dir.file("a"), config, tensors);
  const error = await failure(() => convertAdapter(adapter, dir.file("x.gguf"), { architecture: "qwen3" }));
  expect(readdirSync(dir.path)).toEqual(["a"]);
  return [error.code, (error.facts.problems as string[]).map((problem) => withoutDir(problem, dir.path))];
}

describe("adapterScales", () => {
  const config = { r: 8, lora_alpha: 16, use_rslora: false, rank_pattern: {}, alpha_pattern: {} };

  test("is alpha / r, or alpha / sqrt(r) with rsLoRA", () => {
    expect(adapterScales(config, [DOWN_1])).toEqual({ [DOWN_1]: 2 });
    expect(adapterScales({ ...config, r: 32, use_rslora: true }, [DOWN_1])).toEqual({ [DOWN_1]: 16 / Math.sqrt(32) });
  });

  test("applies patterns to ends of names and to whole names", () => {
    const patterns = {
      rank_pattern: { down_proj: 4, "layers\\.0\\..*": 1 },
      alpha_pattern: { "model.layers.1.mlp.down_proj": 6 },
    };
    expect(adapterScales({ ...config, ...patterns }, [DOWN_1, UP_0, "model.layers.2.mlp.up_proj"])).toEqual({
      [DOWN_1]: 1.5,
      [UP_0]: 16,
      "model.layers.2.mlp.up_proj": 2,
    });
    expect(adapterScales({ ...config, rank_pattern: { proj: 4 } }, [DOWN_1])).toEqual({ [DOWN_1]: 2 });
  });
});

describe("convertAdapter", () => {
  test("folds the scale into B and leaves A alone", async () => {
    using dir = tempDir();
    const tensors = { ...pair(DOWN_1, 2, 12, 8), ...pair(UP_0, 5, 8, 12) };
    const config = { use_rslora: true, rank_pattern: { up_proj: 5 }, alpha_pattern: { up_proj: 7 } };
    const adapter = writeAdapter(dir.file("a"), config, tensors);
    const { scales, bytes, sha256 } = await convertAdapter(adapter, dir.file("x.gguf"), { architecture: "qwen3" });
    expect(scales).toEqual({ [DOWN_1]: 3 / Math.sqrt(2), [UP_0]: 7 / Math.sqrt(5) });
    expect([bytes > 0, sha256]).toEqual([true, expect.stringMatching(/^[\da-f]{64}$/)]);
    const { architecture, alpha, modules } = readAdapterGguf(dir.file("x.gguf"));
    expect([architecture, alpha, [...modules.keys()]]).toEqual(["qwen3", 0, [DOWN_1, UP_0]]);
    for (const [module, { a, b }] of modules) {
      const data = (side: "A" | "B") =>
        new Float32Array(tensors[key(module, side)]?.data.slice().buffer ?? new ArrayBuffer(0));
      const scale = scales[module] ?? Number.NaN;
      expect([...a.data]).toEqual([...data("A")]);
      expect([...b.data]).toEqual([...data("B")].map((value) => Math.fround(value * scale)));
      expect([a.shape, b.shape]).toEqual([tensors[key(module, "A")]?.shape, tensors[key(module, "B")]?.shape]);
    }
    expect(readGguf(dir.file("x.gguf")).tensors.get("blk.1.ffn_down.weight.lora_b")).toMatchObject({
      ne: [2, 8],
      type: "F32",
    });
  });

  test("keeps rank-1 matrices two-dimensional", async () => {
    using dir = tempDir();
    const adapter = writeAdapter(dir.file("a"), { r: 1 }, pair(DOWN_1, 1, 12, 8));
    await convertAdapter(adapter, dir.file("x.gguf"), { architecture: "qwen2" });
    const { tensors } = readGguf(dir.file("x.gguf"));
    expect(tensors.get("blk.1.ffn_down.weight.lora_a")?.ne).toEqual([12, 1]);
    expect(tensors.get("blk.1.ffn_down.weight.lora_b")?.ne).toEqual([1, 8]);
  });

  test("drops the layers that a cut base lacks", async () => {
    using dir = tempDir();
    const adapter = writeAdapter(dir.file("a"), {}, { ...pair(DOWN_1, 2, 12, 8), ...pair(UP_0, 2, 8, 12) });
    const { scales } = await convertAdapter(adapter, dir.file("x.gguf"), { architecture: "qwen3", n_layers: 1 });
    expect(Object.keys(scales)).toEqual([UP_0]);
  });

  test("refuses by name what llama.cpp cannot apply, all at once", async () => {
    const config = {
      ...{ use_dora: true, lora_bias: true, bias: "all", modules_to_save: ["lm_head"], fan_in_fan_out: true },
      ...{
        peft_type: "LOHA",
        init_lora_weights: "pissa",
        layer_replication: [[0, 2]],
        a_later_feature: true,
        target_parameters: [],
      },
    };
    expect(await refusal(config, pair(DOWN_1, 2, 12, 8))).toMatchInlineSnapshot(`
      [
        "ADAPTER_UNSUPPORTED",
        [
          "peft_type: expected "LORA", got "LOHA"",
          "bias: expected "none", got "all"",
          "init_lora_weights: expected one that leaves the base alone, got "pissa"",
          "modules_to_save: expected it unset, got ["lm_head"]",
          "use_dora: expected it unset, got true",
          "lora_bias: expected it unset, got true",
          "fan_in_fan_out: expected it unset, got true",
          "layer_replication: expected it unset, got [[0,2]]",
          "a_later_feature: expected it unset, got true",
        ],
      ]
    `);
  });

  test("refuses weights of embeddings, the output layer, biases and whole modules", async () => {
    const names = [
      ...["model.embed_tokens.lora_embedding_A", "lm_head.lora_A.weight", "model.layers.0.mlp.up_proj.lora_B.bias"],
      ...["model.layers.0.mlp.up_proj.lora_magnitude_vector", "model.norm.modules_to_save.weight"],
    ];
    const tensors = Object.fromEntries(names.map((name) => [`base_model.model.${name}`, f32([2, 2])]));
    const [code, problems] = await refusal({}, { ...tensors, ...pair(DOWN_1, 2, 12, 8) });
    expect([code, problems.length]).toEqual(["ADAPTER_UNSUPPORTED", 5]);
  });

  test("refuses damaged weights by name, all at once", async () => {
    const tensors = {
      ...pair("model.layers.0.mlp.down_proj", 3, 12, 8),
      ...{ [key(DOWN_1, "A")]: f32([2, 12]), "base_model.model.something.else": f32([1]) },
      ...{
        [key(UP_0, "A")]: f32([2, 8, 1]),
        [key(UP_0, "B")]: { dtype: "I8", shape: [12, 2], data: new Uint8Array(24) },
      },
    };
    expect(await refusal({}, tensors)).toMatchInlineSnapshot(`
      [
        "ADAPTER_INVALID",
        [
          "tensor base_model.model.something.else cannot be applied by llama.cpp",
          "model.layers.0.mlp.down_proj: expected rank 2 as adapter_config.json says, got 3 in lora_A [3, 12]",
          "model.layers.0.mlp.down_proj: expected rank 2 as adapter_config.json says, got 3 in lora_B [8, 3]",
          "model.layers.1.mlp.down_proj: expected lora_A and lora_B, got only lora_A",
          "model.layers.0.mlp.up_proj: expected lora_A to be a matrix, got shape [2, 8, 1]",
          "model.layers.0.mlp.up_proj: expected lora_B in F32, F16 or BF16, got I8",
        ],
      ]
    `);
  });

  test("refuses values that are not finite, also once scaled", async () => {
    const huge = { [key(DOWN_1, "A")]: f32([2, 12]), [key(DOWN_1, "B")]: f32([8, 2], () => 3e38) };
    expect(await refusal({ lora_alpha: 4 }, huge)).toMatchInlineSnapshot(`
      [
        "ADAPTER_INVALID",
        [
          "tensor base_model.model.model.layers.1.mlp.down_proj.lora_B.weight: expected finite values, got 6.0000000109955115e+38 at element 0",
        ],
      ]
    `);
    const nan = { ...huge, [key(DOWN_1, "A")]: f32([2, 12], (i) => (i === 3 ? Number.NaN : 0)) };
    expect((await refusal({}, nan))[1][0]).toContain("expected finite values, got NaN at element 3");
  });

  test("refuses patterns whose order would decide the scale", async () => {
    const [code, problems] = await refusal(
      { alpha_pattern: { "layers.1.*": 5, down_proj: 3 } },
      pair(DOWN_1, 2, 12, 8),
    );
    expect([code, ...problems]).toEqual([
      "ADAPTER_INVALID",
      `alpha_pattern: expected one value for ${DOWN_1}, got "layers.1.*": 5, "down_proj": 3`,
    ]);
  });

  test("refuses folders without weights, empty adapters and broken configs", async () => {
    using dir = tempDir();
    const convert = () => convertAdapter(dir.path, dir.file("x.gguf"), { architecture: "qwen3" });
    writeFileSync(dir.file("adapter_model.bin"), "");
    expect(withoutDir((await failure(convert)).message, dir.path)).toMatchInlineSnapshot(`
      "Cannot convert the adapter DIR:
        adapter_config.json is missing
        adapter_model.safetensors is missing
        adapter_model.bin could run code when read and is never opened"
    `);
    writeAdapter(dir.path, {}, {});
    expect((await failure(convert)).message).toContain("expected LoRA weights of at least one module, got none");
    writeAdapter(dir.path, { r: 0, lora_alpha: "x" }, {});
    expect((await failure(convert)).facts.problems).toHaveLength(2);
    rmSync(dir.file("adapter_config.json"));
    writeFileSync(dir.file("adapter_config.json"), "[");
    expect((await failure(convert)).code).toBe("ADAPTER_INVALID");
  });
});

test("readAdapterGguf refuses a base model", async () => {
  using dir = tempDir();
  writeModel(dir.path);
  await convertBase(openModelDir(dir.path), dir.file("x.gguf"), { dtype: "f32" });
  const error = await failure(() => readAdapterGguf(dir.file("x.gguf")));
  expect(withoutDir(error.message, dir.path)).toBe("Cannot read the adapter DIR/x.gguf: expected a LoRA adapter");
});
