import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { expectedTensors, parseModelConfig } from "../../../src/formats/model-config.ts";
import { openModelDir } from "../../../src/formats/model-dir.ts";
import { writeSafetensors } from "../../../src/formats/safetensors.ts";
import { f32, failure, TINY_CONFIG, tempDir, withoutDir, writeJson, writeModel } from "./fixtures.ts";

/** The lines of the error after its first. */
async function problemsOf(dir: string): Promise<string[]> {
  const error = await failure(() => openModelDir(dir));
  expect(error.code).toBe("MODEL_INVALID");
  expect(error.hint).toContain("Qwen");
  expect(error.facts.problems).toEqual(expect.any(Array));
  return (error.facts.problems as string[]).map((problem) => withoutDir(problem, dir));
}

describe("openModelDir", () => {
  test("opens a Qwen3 folder", () => {
    using dir = tempDir();
    const tensors = writeModel(dir.path);
    const model = openModelDir(dir.path);
    expect(model).toMatchObject({
      ...{ dir: dir.path, architecture: "qwen3", n_layers: 3, hidden_size: 8, vocab_size: 264, tied: true },
      weight_files: ["model.safetensors"],
      config: { rope_theta: 1e6, head_dim: 4, rms_norm_eps: 1e-5 },
    });
    expect([...model.tensors.keys()].sort()).toEqual(Object.keys(tensors).sort());
    expect(model.tensors.get("model.norm.weight")).toMatchObject({ file: dir.file("model.safetensors"), shape: [8] });
  });

  test("opens a Qwen2 folder of transformers 4, untied and in two shards", () => {
    using dir = tempDir();
    const { rope_parameters: _, head_dim: __, ...rest } = TINY_CONFIG;
    const config = { ...rest, model_type: "qwen2", architectures: ["Qwen2ForCausalLM"], tie_word_embeddings: false };
    const tensors = Object.entries(
      writeModel(dir.path, { ...config, rope_theta: 5e5, rope_parameters: null, head_dim: null }),
    );
    rmSync(dir.file("model.safetensors"));
    const names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    const halves = [tensors.slice(0, 9), tensors.slice(9)];
    for (const [i, half] of halves.entries()) writeSafetensors(dir.file(names[i] as string), Object.fromEntries(half));
    const weight_map = Object.fromEntries(halves.flatMap((half, i) => half.map(([name]) => [name, names[i]])));
    writeJson(dir.file("model.safetensors.index.json"), { metadata: {}, weight_map });
    const model = openModelDir(dir.path);
    expect(model).toMatchObject({
      architecture: "qwen2",
      tied: false,
      weight_files: names,
      config: { rope_theta: 5e5, head_dim: 4 },
    });
    expect(model.tensors.get("lm_head.weight")?.file).toBe(dir.file(names[1] as string));
    expect(model.tensors.get("model.layers.0.self_attn.q_proj.bias")?.shape).toEqual([8]);
  });

  test("names everything that is missing at once", async () => {
    using dir = tempDir();
    writeFileSync(dir.file("pytorch_model.bin"), "");
    expect(await problemsOf(dir.path)).toMatchInlineSnapshot(`
      [
        "tokenizer.json is missing",
        "tokenizer_config.json is missing",
        "config.json is missing",
        "model.safetensors is missing: only pytorch_model.bin, which could run code when read and is never opened",
      ]
    `);
  });

  test("refuses other architectures and variants that compute something else", async () => {
    using dir = tempDir();
    writeModel(dir.path);
    writeJson(dir.file("config.json"), { ...TINY_CONFIG, model_type: "llama" });
    expect(await problemsOf(dir.path)).toMatchInlineSnapshot(`
      [
        "config.json: expected model_type qwen2 or qwen3, got "llama"",
      ]
    `);
    writeJson(dir.file("config.json"), {
      ...TINY_CONFIG,
      ...{ hidden_act: "gelu", use_sliding_window: true, attention_bias: true, quantization_config: { bits: 4 } },
      rope_parameters: { rope_type: "yarn", rope_theta: 1e6 },
    });
    expect(await problemsOf(dir.path)).toMatchInlineSnapshot(`
      [
        "config.json: expected hidden_act "silu", got "gelu"",
        "config.json: expected use_sliding_window false, got true",
        "config.json: expected attention_bias false, got true",
        "config.json: expected no quantization_config, got {"bits":4}",
        "config.json: expected rope_parameters.rope_type "default", got "yarn"",
      ]
    `);
    writeFileSync(dir.file("config.json"), "{");
    expect((await problemsOf(dir.path))[0]).toContain("config.json: expected JSON");
    writeJson(dir.file("config.json"), { ...TINY_CONFIG, num_hidden_layers: 1e9, hidden_size: "8" });
    expect(await problemsOf(dir.path)).toHaveLength(2);
  });

  test("refuses missing, misshapen, unknown and integer tensors by name", async () => {
    using dir = tempDir();
    const tensors = writeModel(dir.path, { tie_word_embeddings: false });
    delete tensors["lm_head.weight"];
    delete tensors["model.layers.2.mlp.down_proj.weight"];
    tensors["model.norm.weight"] = f32([9]);
    tensors["model.layers.1.input_layernorm.weight"] = { dtype: "I32", shape: [8], data: new Uint8Array(32) };
    tensors["model.layers.0.mlp.experts.0.up_proj.weight"] = f32([1]);
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = f32([2]);
    writeSafetensors(dir.file("model.safetensors"), tensors);
    expect(await problemsOf(dir.path)).toMatchInlineSnapshot(`
      [
        "tensor model.layers.1.input_layernorm.weight: expected F32, F16 or BF16, got I32",
        "tensor model.layers.2.mlp.down_proj.weight is missing",
        "tensor model.norm.weight: expected shape [8], got [9]",
        "tensor lm_head.weight is missing although config.json says tie_word_embeddings: false",
        "tensor model.layers.0.mlp.experts.0.up_proj.weight is not part of qwen3",
      ]
    `);
  });

  test("never leaves the folder for a shard", async () => {
    using dir = tempDir();
    writeModel(dir.path);
    mkdirSync(dir.file("sub"));
    const weight_map = {
      a: "../model.safetensors",
      b: "/etc/passwd",
      c: "sub/x.safetensors",
      d: ".hidden.safetensors",
      e: "gone.safetensors",
    };
    writeJson(dir.file("model.safetensors.index.json"), { weight_map });
    expect((await problemsOf(dir.path)).slice(0, 5)).toMatchInlineSnapshot(`
      [
        "gone.safetensors is missing",
        "model.safetensors.index.json: expected the name of a .safetensors file, got "../model.safetensors"",
        "model.safetensors.index.json: expected the name of a .safetensors file, got ".hidden.safetensors"",
        "model.safetensors.index.json: expected the name of a .safetensors file, got "/etc/passwd"",
        "model.safetensors.index.json: expected the name of a .safetensors file, got "sub/x.safetensors"",
      ]
    `);
  });

  test("says which folder is not there", async () => {
    const error = await failure(() => openModelDir("/no/such/model"));
    expect([error.code, error.message]).toEqual([
      "NOT_FOUND",
      "Cannot open the model /no/such/model: expected a folder, got nothing there",
    ]);
  });
});

test("expectedTensors knows the shapes of grouped attention", () => {
  const { config } = parseModelConfig({ ...TINY_CONFIG, head_dim: 16 });
  const shapes = expectedTensors(config as NonNullable<typeof config>);
  expect(shapes.get("model.layers.0.self_attn.q_proj.weight")).toEqual([32, 8]);
  expect(shapes.get("model.layers.0.self_attn.k_proj.weight")).toEqual([16, 8]);
  expect(shapes.get("model.layers.0.self_attn.o_proj.weight")).toEqual([8, 32]);
});
