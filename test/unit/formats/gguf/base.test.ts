import { readFileSync, writeFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { fromFloat32, toFloat32 } from "../../../../src/formats/floats.ts";
import { convertBase } from "../../../../src/formats/gguf/base.ts";
import { readGguf, readGgufTensor } from "../../../../src/formats/gguf/read.ts";
import { tokenizerMetadata } from "../../../../src/formats/gguf/tokenizer.ts";
import { openModelDir } from "../../../../src/formats/model-dir.ts";
import { type TensorData, writeSafetensors } from "../../../../src/formats/safetensors.ts";
import {
  f32,
  failure,
  TINY_TEMPLATE,
  tempDir,
  tinyTokenizer,
  withoutDir,
  writeModel,
  writeTokenizer,
} from "../fixtures.ts";

const valuesIn = (file: string, name: string): number[] => {
  const tensor = readGguf(file).tensors.get(name);
  if (tensor === undefined) throw new Error(`no ${name}`);
  return [...toFloat32(readGgufTensor(file, tensor), tensor.type as "F32")];
};
const original = (tensor: TensorData | undefined): Float32Array => toFloat32(tensor?.data ?? new Uint8Array(), "F32");

describe("convertBase", () => {
  test("writes every tensor under llama.cpp's name, with the metadata that the loader needs", async () => {
    using dir = tempDir();
    const tensors = writeModel(dir.path);
    const out = dir.file("x.gguf");
    const written = await convertBase(openModelDir(dir.path), out, { dtype: "f32" });
    const { metadata, tensors: converted } = readGguf(out);
    expect(written.tensors).toBe(Object.keys(tensors).length);
    expect(
      Object.fromEntries(
        [...metadata].filter(([key]) => !key.startsWith("tokenizer")).map(([key, { value }]) => [key, value]),
      ),
    ).toMatchInlineSnapshot(`
      {
        "general.architecture": "qwen3",
        "general.file_type": 0,
        "general.quantization_version": 2,
        "general.type": "model",
        "qwen3.attention.head_count": 2,
        "qwen3.attention.head_count_kv": 1,
        "qwen3.attention.key_length": 4,
        "qwen3.attention.layer_norm_rms_epsilon": 0.000009999999747378752,
        "qwen3.attention.value_length": 4,
        "qwen3.block_count": 3,
        "qwen3.context_length": 64,
        "qwen3.embedding_length": 8,
        "qwen3.feed_forward_length": 12,
        "qwen3.rope.freq_base": 1000000,
      }
    `);
    expect([...converted.keys()].filter((name) => !/^blk\.[12]\./.test(name))).toMatchInlineSnapshot(`
      [
        "token_embd.weight",
        "blk.0.attn_norm.weight",
        "blk.0.attn_q.weight",
        "blk.0.attn_k.weight",
        "blk.0.attn_v.weight",
        "blk.0.attn_output.weight",
        "blk.0.attn_q_norm.weight",
        "blk.0.attn_k_norm.weight",
        "blk.0.ffn_norm.weight",
        "blk.0.ffn_gate.weight",
        "blk.0.ffn_up.weight",
        "blk.0.ffn_down.weight",
        "output_norm.weight",
      ]
    `);
    expect(converted.get("blk.0.ffn_down.weight")?.ne).toEqual([12, 8]);
    expect(valuesIn(out, "blk.2.ffn_down.weight")).toEqual([
      ...original(tensors["model.layers.2.mlp.down_proj.weight"]),
    ]);
  });

  test("is the same file wherever the model lies and however often it is written", async () => {
    using one = tempDir();
    using two = tempDir();
    const shas = [];
    for (const dir of [one, two]) {
      writeModel(dir.path);
      shas.push((await convertBase(openModelDir(dir.path), dir.file("x.gguf"), { dtype: "bf16" })).sha256);
    }
    expect(shas[0]).toBe(shas[1]);
  });

  test("rounds matrices to the dtype and leaves vectors in float32", async () => {
    using dir = tempDir();
    const tensors = writeModel(dir.path, {
      model_type: "qwen2",
      architectures: ["Qwen2ForCausalLM"],
      tie_word_embeddings: false,
    });
    const out = dir.file("x.gguf");
    for (const [dtype, type, file_type] of [
      ["bf16", "BF16", 32],
      ["f16", "F16", 1],
    ] as const) {
      await convertBase(openModelDir(dir.path), out, { dtype });
      const read = readGguf(out);
      expect(read.metadata.get("general.file_type")?.value).toBe(file_type);
      expect(read.tensors.get("output.weight")?.type).toBe(type);
      expect(read.tensors.get("blk.0.attn_q.bias")?.type).toBe("F32");
      const rounded = toFloat32(fromFloat32(original(tensors["lm_head.weight"]), type), type);
      expect(valuesIn(out, "output.weight")).toEqual([...rounded]);
      expect(valuesIn(out, "blk.0.attn_q.bias")).toEqual([
        ...original(tensors["model.layers.0.self_attn.q_proj.bias"]),
      ]);
    }
  });

  test("keeps stored bytes with dtype keep", async () => {
    using dir = tempDir();
    const tensors = writeModel(dir.path);
    const name = "model.embed_tokens.weight";
    const bits = fromFloat32(original(tensors[name]), "BF16");
    tensors[name] = { dtype: "BF16", shape: [264, 8], data: bits };
    writeSafetensors(dir.file("model.safetensors"), tensors);
    await convertBase(openModelDir(dir.path), dir.file("x.gguf"), { dtype: "keep" });
    const read = readGguf(dir.file("x.gguf"));
    const embedding = read.tensors.get("token_embd.weight");
    expect(embedding && readGgufTensor(dir.file("x.gguf"), embedding)).toEqual(Buffer.from(bits));
    expect(read.metadata.get("general.file_type")?.value).toBe(32);
    expect(read.tensors.get("blk.0.ffn_up.weight")?.type).toBe("F32");
  });

  test("cuts the model to its first layers", async () => {
    using dir = tempDir();
    writeModel(dir.path);
    const model = openModelDir(dir.path);
    await convertBase(model, dir.file("x.gguf"), { dtype: "f32", n_layers: 2 });
    const read = readGguf(dir.file("x.gguf"));
    expect(read.metadata.get("qwen3.block_count")?.value).toBe(2);
    expect([...read.tensors.keys()].filter((name) => name.startsWith("blk.2."))).toEqual([]);
    expect([...read.tensors.keys()].filter((name) => name.startsWith("blk.1."))).toHaveLength(11);
    expect((await failure(() => convertBase(model, dir.file("y"), { dtype: "f32", n_layers: 4 }))).message).toBe(
      "Cannot keep 4 layers: expected 1 to 3",
    );
  });

  test("refuses values that F16 cannot hold", async () => {
    using dir = tempDir();
    const tensors = writeModel(dir.path);
    tensors["model.layers.1.mlp.up_proj.weight"] = f32([12, 8], (i) => (i === 5 ? -1e6 : 1));
    writeSafetensors(dir.file("model.safetensors"), tensors);
    const error = await failure(() => convertBase(openModelDir(dir.path), dir.file("x.gguf"), { dtype: "f16" }));
    expect(error.message).toMatchInlineSnapshot(
      `"Cannot store model.layers.1.mlp.up_proj.weight as f16: expected values below 65520, got -1000000"`,
    );
  });
});

describe("tokenizerMetadata", () => {
  test("numbers tokens by id, fills holes and marks special tokens", () => {
    using dir = tempDir();
    writeTokenizer(dir.path);
    const metadata = tokenizerMetadata(dir.path, 263);
    const array = (key: string) => metadata.get(`tokenizer.ggml.${key}`)?.value as readonly unknown[];
    expect(array("tokens").slice(255)).toEqual([
      "ÿ",
      "he",
      "hel",
      "<|endoftext|>",
      "<|im_start|>",
      "<|im_end|>",
      "[PAD261]",
      "[PAD262]",
    ]);
    expect(array("token_type").slice(256)).toEqual([1, 1, 3, 3, 3, 5, 5]);
    expect(array("merges")).toEqual(["h e", "he l"]);
    const value = (key: string) => metadata.get(key)?.value;
    expect(value("tokenizer.ggml.eos_token_id")).toBe(260);
    expect(value("tokenizer.ggml.bos_token_id")).toBe(258);
    expect(value("tokenizer.ggml.add_bos_token")).toBe(false);
    expect(value("tokenizer.chat_template")).toBe(TINY_TEMPLATE);
  });

  test.each([
    [
      "another pattern",
      { pre_tokenizer: { type: "ByteLevel", use_regex: true } },
      'expected the pre_tokenizer of Qwen2, got {"type":"ByteLevel"',
    ],
    ["another model", { model: { type: "Unigram", vocab: {}, merges: [] } }, "expected a BPE model, got Unigram"],
    ["another normalizer", { normalizer: { type: "NFKC" } }, "expected normalizer NFC, got NFKC"],
    ["ids beyond the embedding", {}, 'expected ids below vocab_size 260, got 260 for "<|im_end|>"'],
    ["no merges", { model: { type: "BPE", vocab: {} } }, "tokenizer.json: model.merges"],
  ])("refuses %s", async (_name, change, message) => {
    using dir = tempDir();
    writeTokenizer(dir.path, {}, { ...tinyTokenizer(), ...change });
    const error = await failure(() => tokenizerMetadata(dir.path, 260));
    expect(error.code).toBe("MODEL_INVALID");
    expect(withoutDir(error.message, dir.path)).toContain(message);
  });

  test("keeps a token called __proto__", () => {
    using dir = tempDir();
    writeTokenizer(dir.path);
    const json = readFileSync(dir.file("tokenizer.json"), "utf8");
    writeFileSync(dir.file("tokenizer.json"), json.replace('"hel":', '"__proto__":'));
    const tokens = tokenizerMetadata(dir.path, 261).get("tokenizer.ggml.tokens")?.value;
    expect((tokens as string[])[257]).toBe("__proto__");
  });
});
