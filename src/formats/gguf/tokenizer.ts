import { readFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { DriverError } from "../../errors.ts";
import { readTemplate, specialTokens } from "../tokenizer-config.ts";
import type { GgufValue } from "./types.ts";
import { text, u32 } from "./write.ts";

/**
 * How Qwen2, Qwen2.5 and Qwen3 split text before merging; llama.cpp knows it by the name "qwen2".
 *
 * Source: `pre_tokenizer` of their tokenizer.json; llama.cpp `src/llama-vocab.cpp` `LLAMA_VOCAB_PRE_TYPE_QWEN2`.
 */
export const QWEN2_PATTERN =
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/** Source: llama.cpp `include/llama.h` `enum llama_token_type`. */
const TOKEN_TYPE = { normal: 1, control: 3, user_defined: 4, unused: 5 } as const;

const Id = z.int().nonnegative().max(10_000_000);
const AddedToken = z.looseObject({
  id: Id,
  content: z.string().min(1),
  special: z.boolean(),
  single_word: z.boolean().default(false),
  lstrip: z.boolean().default(false),
  rstrip: z.boolean().default(false),
});
const TokenizerJson = z.looseObject({
  normalizer: z.looseObject({ type: z.string() }).nullable(),
  pre_tokenizer: z.unknown(),
  added_tokens: z.array(AddedToken),
  model: z.looseObject({
    type: z.string(),
    byte_fallback: z.boolean().nullish(),
    continuing_subword_prefix: z.string().nullish(),
    end_of_word_suffix: z.string().nullish(),
    // Not z.record: it leaves out a token called __proto__.
    vocab: z.custom<Record<string, unknown>>(
      (value) => typeof value === "object" && value !== null,
      "expected an object",
    ),
    merges: z.array(z.union([z.string(), z.tuple([z.string(), z.string()])])),
  }),
});
type TokenizerJson = z.output<typeof TokenizerJson>;

const PreTokenizer = z.looseObject({
  type: z.literal("Sequence"),
  pretokenizers: z.tuple([
    z.looseObject({
      type: z.literal("Split"),
      pattern: z.strictObject({ Regex: z.literal(QWEN2_PATTERN) }),
      behavior: z.literal("Isolated"),
      invert: z.literal(false),
    }),
    z.looseObject({ type: z.literal("ByteLevel"), add_prefix_space: z.literal(false), use_regex: z.literal(false) }),
  ]),
});

function refuse(dir: string, message: string): DriverError {
  return new DriverError("MODEL_INVALID", `Cannot convert the tokenizer of ${dir}: ${message}`, {
    hint: "Only the tokenizers of Qwen2, Qwen2.5 and Qwen3 are converted.",
    facts: { dir },
  });
}

/**
 * The tokenizer as GGUF metadata. vivarium sends token ids and never lets llama.cpp tokenise; llama.cpp needs this to
 * load the model and to know its end-of-generation tokens, and other tools need it to use the file.
 *
 * `vocab_size` is the number of rows of the embedding; ids that the tokenizer lacks become unused tokens.
 *
 * @throws DriverError MODEL_INVALID for any other kind of tokenizer: llama.cpp would split text in another way.
 */
export function tokenizerMetadata(dir: string, vocab_size: number): Map<string, GgufValue> {
  const json = readTokenizerJson(dir);
  validateKind(dir, json);
  const { tokens, types } = tokenTable(dir, json, vocab_size);
  const metadata = new Map<string, GgufValue>([
    ["tokenizer.ggml.model", text("gpt2")],
    ["tokenizer.ggml.pre", text("qwen2")],
    ["tokenizer.ggml.tokens", { type: "array", of: "string", value: tokens }],
    ["tokenizer.ggml.token_type", { type: "array", of: "i32", value: types }],
    ["tokenizer.ggml.merges", { type: "array", of: "string", value: json.model.merges.map(mergeText) }],
  ]);
  const { bos_token, eos_token, pad_token } = specialTokens(dir);
  const ids = { eos: eos_token, padding: pad_token, bos: bos_token ?? pad_token };
  for (const [name, token] of Object.entries(ids)) {
    const id = token === undefined ? -1 : tokens.indexOf(token);
    if (id >= 0) metadata.set(`tokenizer.ggml.${name}_token_id`, u32(id));
  }
  metadata.set("tokenizer.ggml.add_bos_token", { type: "bool", value: false });
  const template = readTemplate(dir);
  if (template !== undefined) metadata.set("tokenizer.chat_template", text(template));
  return metadata;
}

const mergeText = (merge: string | [string, string]): string => (typeof merge === "string" ? merge : merge.join(" "));

function readTokenizerJson(dir: string): TokenizerJson {
  let json: unknown;
  try {
    json = JSON.parse(readFileSync(join(dir, "tokenizer.json"), "utf8"));
  } catch (error) {
    throw refuse(dir, `expected tokenizer.json to hold JSON, got an error: ${(error as Error).message}`);
  }
  const parsed = TokenizerJson.safeParse(json);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  throw refuse(dir, `tokenizer.json: ${issue?.path.join(".")}: ${issue?.message}`);
}

function validateKind(dir: string, { model, normalizer, pre_tokenizer, added_tokens }: TokenizerJson): void {
  if (model.type !== "BPE") throw refuse(dir, `expected a BPE model, got ${model.type}`);
  if (model.byte_fallback || model.continuing_subword_prefix || model.end_of_word_suffix) {
    throw refuse(dir, "expected byte-level BPE, got byte_fallback, continuing_subword_prefix or end_of_word_suffix");
  }
  if (normalizer !== null && normalizer.type !== "NFC")
    throw refuse(dir, `expected normalizer NFC, got ${normalizer.type}`);
  if (!PreTokenizer.safeParse(pre_tokenizer).success) {
    throw refuse(dir, `expected the pre_tokenizer of Qwen2, got ${JSON.stringify(pre_tokenizer).slice(0, 300)}`);
  }
  const odd = added_tokens.find((token) => token.lstrip || token.rstrip || token.single_word);
  if (odd !== undefined)
    throw refuse(dir, `expected added tokens without lstrip, rstrip and single_word, got ${odd.content}`);
}

function tokenTable(dir: string, json: TokenizerJson, vocab_size: number): { tokens: string[]; types: number[] } {
  const tokens = Array.from({ length: vocab_size }, (_, id) => `[PAD${id}]`);
  const types = new Array<number>(vocab_size).fill(TOKEN_TYPE.unused);
  const set = (id: unknown, token: string, type: number) => {
    if (!Number.isInteger(id) || Number(id) < 0 || Number(id) >= vocab_size)
      throw refuse(dir, `expected ids below vocab_size ${vocab_size}, got ${id} for ${JSON.stringify(token)}`);
    tokens[Number(id)] = token;
    types[Number(id)] = type;
  };
  for (const [token, id] of Object.entries(json.model.vocab)) {
    if (types[Number(id)] === TOKEN_TYPE.normal) throw refuse(dir, `expected one token for each id, got two for ${id}`);
    set(id, token, TOKEN_TYPE.normal);
  }
  for (const { id, content, special } of json.added_tokens) {
    set(id, content, special ? TOKEN_TYPE.control : TOKEN_TYPE.user_defined);
  }
  return { tokens, types };
}
