import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DriverError } from "../../../src/errors.ts";
import { QWEN2_PATTERN } from "../../../src/formats/gguf/tokenizer.ts";
import { expectedTensors, parseModelConfig } from "../../../src/formats/model-config.ts";
import { type TensorData, writeSafetensors } from "../../../src/formats/safetensors.ts";

/** A folder that is removed at the end of the test: `using dir = tempDir()`. */
export function tempDir(): Disposable & { path: string; file(name: string): string } {
  const path = mkdtempSync(join(tmpdir(), "vivarium-formats-"));
  return {
    path,
    file: (name) => join(path, name),
    [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }),
  };
}

/** The DriverError that `run` throws; any other outcome fails the test. */
export async function failure(run: () => unknown): Promise<DriverError> {
  let outcome: unknown;
  try {
    outcome = await run();
  } catch (error) {
    if (error instanceof DriverError) return error;
    throw error;
  }
  throw new Error(`expected a DriverError, got ${String(outcome)}`);
}

/** A message without the random folder in it. */
export const withoutDir = (message: string, dir: string): string => message.replaceAll(dir, "DIR");

export function f32(shape: number[], values?: (i: number) => number): TensorData {
  const n = shape.reduce((product, size) => product * size, 1);
  const data = Float32Array.from({ length: n }, (_, i) => (values ?? defaultValue)(i));
  return { dtype: "F32", shape, data: new Uint8Array(data.buffer) };
}

const defaultValue = (i: number): number => Math.sin(i + 1);

/** Every byte as one token, two merges, and Qwen's first three special tokens: 261 ids. */
export function tinyTokenizer(): Record<string, unknown> {
  const printable = (byte: number) => (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
  let next = 256;
  const vocab: Record<string, number> = {};
  for (let byte = 0; byte < 256; byte++) vocab[String.fromCodePoint(printable(byte) ? byte : next++)] = byte;
  vocab.he = 256;
  vocab.hel = 257;
  const added = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"].map((content, i) => ({
    ...{ id: 258 + i, content, special: true, single_word: false, lstrip: false, rstrip: false, normalized: false },
  }));
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: added,
    normalizer: { type: "NFC" },
    pre_tokenizer: {
      type: "Sequence",
      pretokenizers: [
        { type: "Split", pattern: { Regex: QWEN2_PATTERN }, behavior: "Isolated", invert: false },
        { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false },
      ],
    },
    post_processor: null,
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: "BPE",
      vocab,
      merges: [
        ["h", "e"],
        ["he", "l"],
      ],
    },
  };
}

export const TINY_TEMPLATE =
  "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}" +
  "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}";

export const TINY_CONFIG = {
  architectures: ["Qwen3ForCausalLM"],
  model_type: "qwen3",
  vocab_size: 264,
  hidden_size: 8,
  intermediate_size: 12,
  num_hidden_layers: 3,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  head_dim: 4,
  max_position_embeddings: 64,
  rms_norm_eps: 1e-5,
  tie_word_embeddings: true,
  hidden_act: "silu",
  rope_parameters: { rope_type: "default", rope_theta: 1e6 },
};

export function writeJson(path: string, value: unknown): void {
  writeFileSync(path, JSON.stringify(value));
}

/** Writes tokenizer.json and tokenizer_config.json; `config` replaces entries of the latter. */
export function writeTokenizer(dir: string, config: Record<string, unknown> = {}, tokenizer = tinyTokenizer()): void {
  writeJson(join(dir, "tokenizer.json"), tokenizer);
  const tokens = { eos_token: "<|im_end|>", pad_token: "<|endoftext|>", bos_token: null };
  writeJson(join(dir, "tokenizer_config.json"), { ...tokens, chat_template: TINY_TEMPLATE, ...config });
}

/** Writes a whole model folder; entries of `config` replace those of TINY_CONFIG. Returns the tensors written. */
export function writeModel(dir: string, config: Record<string, unknown> = {}): Record<string, TensorData> {
  const merged = { ...TINY_CONFIG, ...config };
  writeJson(join(dir, "config.json"), merged);
  writeTokenizer(dir);
  const parsed = parseModelConfig(merged).config;
  if (parsed === null) throw new Error("the fixture's config is invalid");
  const tensors = Object.fromEntries([...expectedTensors(parsed)].map(([name, shape]) => [name, f32(shape)]));
  writeSafetensors(join(dir, "model.safetensors"), tensors);
  return tensors;
}
