import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { DriverError } from "../errors.ts";
import type { ChatTemplateKwargs, Rendering } from "../records/lora.ts";
import type { Message } from "./dataset.ts";
import { compileTemplate } from "./jinja.ts";
import { type TokenCodec, tokenCodec } from "./token-codec.ts";
import { readTemplate, specialTokens } from "./tokenizer-config.ts";
import { type RenderOptions, type TrainingRow, trainingRow } from "./training-row.ts";

export { type Digests, digests } from "./digests.ts";
export type { RenderOptions, TrainingRow } from "./training-row.ts";

/** How a model writes conversations: its template, its tokenizer, and the tokens that end a response. */
export interface ChatFormat {
  template: string;
  template_sha256: string;
  /** Of the bytes of tokenizer.json. */
  tokenizer_sha256: string;
  /** Number of tokens that the tokenizer knows; the model may have more rows. */
  vocab_size: number;
  /** The token that ends a turn, as tokenizer_config.json names it. */
  eos_token: string;
  eos_token_id: number;
  /** Ids that end a response, without repeats; the first is `eos_token_id`. */
  stop_token_ids: number[];
  /** Spellings that become control tokens wherever they stand. */
  special_tokens: string[];
  render(messages: readonly Message[], options: RenderOptions): string;
  /** Token ids of the text alone: nothing is put before or after it. */
  encode(text: string): number[];
  /** The text of the ids without special tokens, spaces untouched. Inverse of `encode` for text in NFC. */
  decode(ids: readonly number[]): string;
  promptIds(messages: readonly Message[], kwargs: ChatTemplateKwargs): number[];
  /** `kwargs` are those of `thinkingKwargs` for the rendering's `thinking`. */
  trainingRow(messages: readonly Message[], kwargs: ChatTemplateKwargs, rendering: Rendering): TrainingRow;
  /** The first special token that is spelled out in the text, if any. */
  findSpecialToken(text: string): string | undefined;
  /** The bytes that a token stands for; of an added token its spelling. */
  tokenBytes(id: number): Uint8Array;
  /** True of tokens that are no piece of text: the special ones and such as `<think>`. */
  isAddedToken(id: number): boolean;
}

/**
 * Reads the chat format of a model folder.
 *
 * @throws DriverError MODEL_INVALID when there is no chat template, no eos token, or the tokenizer cannot be read.
 */
export async function loadChatFormat(dir: string): Promise<ChatFormat> {
  const { bytes, json } = await readTokenizerJson(dir);
  const codec = tokenCodec(dir, json);
  const tokens = specialTokens(dir);
  const template = readTemplate(dir);
  if (template === undefined) throw refuse(dir, "expected a chat template, got none in tokenizer_config.json");
  const eos_token = tokens.eos_token;
  const eos_token_id = eos_token === undefined ? undefined : codec.special.get(eos_token);
  if (eos_token === undefined || eos_token_id === undefined) {
    throw refuse(dir, `expected eos_token to be a special token of tokenizer.json, got ${JSON.stringify(eos_token)}`);
  }
  const compiled = compileTemplate(template, dir);
  const render = (messages: readonly Message[], { add_generation_prompt, kwargs }: RenderOptions) =>
    compiled.render({ messages, tools: null, documents: null, add_generation_prompt, ...tokens, ...kwargs });
  const special_tokens = [...codec.special.keys()];
  const { encode, decode } = codec;
  const findSpecialToken = (text: string) => special_tokens.find((token) => text.includes(token));
  return {
    template,
    template_sha256: createHash("sha256").update(template).digest("hex"),
    tokenizer_sha256: createHash("sha256").update(bytes).digest("hex"),
    vocab_size: codec.vocab_size,
    ...{ eos_token, eos_token_id, special_tokens, render, findSpecialToken },
    stop_token_ids: stopTokenIds(dir, codec, eos_token_id),
    ...{ encode, decode, tokenBytes: codec.bytes, isAddedToken: (id) => codec.added.has(id) },
    promptIds: (messages, kwargs) => encode(render(messages, { add_generation_prompt: true, kwargs })),
    trainingRow: (messages, kwargs, rendering) =>
      trainingRow({ eos_token, findSpecialToken, encode, decode, render }, messages, kwargs, rendering),
  };
}

function refuse(dir: string, message: string): DriverError {
  return new DriverError("MODEL_INVALID", `Cannot use the chat format of ${dir}: ${message}`, {
    hint: "Use an instruct model: a base model has no chat template of its own.",
    facts: { dir },
  });
}

async function readTokenizerJson(dir: string): Promise<{ bytes: Buffer; json: unknown }> {
  const file = join(dir, "tokenizer.json");
  if (!existsSync(file)) throw refuse(dir, "expected tokenizer.json, got nothing there");
  const bytes = await readFile(file);
  try {
    return { bytes, json: JSON.parse(bytes.toString("utf8")) };
  } catch (error) {
    throw refuse(dir, `expected tokenizer.json to hold JSON, got an error: ${(error as Error).message}`);
  }
}

const Id = z.int().nonnegative();
const GenerationConfig = z.looseObject({ eos_token_id: z.union([Id, z.array(Id)]).nullish() });

function stopTokenIds(dir: string, codec: TokenCodec, eos_token_id: number): number[] {
  const ids = [eos_token_id];
  const file = join(dir, "generation_config.json");
  if (existsSync(file)) {
    const text = readFileSync(file, "utf8");
    const parsed = GenerationConfig.safeParse(jsonOrNull(text));
    if (!parsed.success)
      throw refuse(dir, `expected eos_token_id in generation_config.json to be token ids, got ${text}`);
    ids.push(...[parsed.data.eos_token_id ?? []].flat());
  }
  const end_of_text = codec.special.get("<|endoftext|>");
  if (end_of_text !== undefined) ids.push(end_of_text);
  return [...new Set(ids)];
}

function jsonOrNull(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

const mentionsThinking = (template: string): boolean => /\benable_thinking\b/.test(template);

/**
 * Arguments of the chat template, the same when training and when serving. Qwen3 thinks unless it is told not to.
 *
 * @throws DriverError CONFIG_INVALID when the template knows no thinking but `empty` asks for a block of it: none would be
 * written.
 */
export function thinkingKwargs(template: string, thinking: Rendering["thinking"]): ChatTemplateKwargs {
  if (mentionsThinking(template)) return { enable_thinking: thinking !== "off" };
  if (thinking !== "empty") return {};
  throw new DriverError(
    "CONFIG_INVALID",
    `thinking: expected off or keep with a chat template that does not read enable_thinking, got ${thinking}`,
    {
      hint: "Set thinking: off, or keep where the data has think blocks, or use a model that thinks, such as Qwen3.",
      facts: { thinking },
    },
  );
}

/** Arguments of the chat template for plain answers, which is how the models here are measured. */
export function defaultTemplateKwargs(template: string): ChatTemplateKwargs {
  return thinkingKwargs(template, "off");
}
