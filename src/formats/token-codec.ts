import { Tokenizer } from "@huggingface/tokenizers";
import { DriverError } from "../errors.ts";
import { wordEncoder } from "./word-encoder.ts";

/** Text to token ids and back, exactly as the Python package `tokenizers` does it for byte-level BPE. */
export interface TokenCodec {
  vocab_size: number;
  /** Contents of the tokens that tokenizer.json marks as special, by id. */
  special: Map<string, number>;
  /** Ids of all tokens that are no piece of text: the special ones and such as `<think>`. */
  added: ReadonlySet<number>;
  encode(text: string): number[];
  decode(ids: readonly number[]): string;
  /** The bytes that a token stands for; of an added token its spelling. */
  bytes(id: number): Uint8Array;
}

/**
 * The characters that byte-level BPE writes bytes as.
 *
 * Source: openai/gpt-2 `src/encoder.py` `bytes_to_unicode`.
 */
function byteAlphabet(): Map<string, number> {
  const printable = (byte: number) => (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
  const alphabet = new Map<string, number>();
  let next = 256;
  for (let byte = 0; byte < 256; byte++) alphabet.set(String.fromCodePoint(printable(byte) ? byte : next++), byte);
  return alphabet;
}

/**
 * A codec out of a parsed tokenizer.json.
 *
 * @throws DriverError MODEL_INVALID when the ids have gaps (the Python package would then number added tokens
 * differently), or the tokenizer is not byte-level.
 */
export function tokenCodec(dir: string, json: unknown): TokenCodec {
  const tokenizer = construct(dir, json);
  if ((json as { decoder?: { type?: string } }).decoder?.type !== "ByteLevel") {
    throw refuse(dir, "expected a ByteLevel decoder, as in Qwen2 and Qwen3");
  }
  const vocab_size = validateContiguous(dir, tokenizer);
  const added = tokenizer.get_added_tokens_decoder();
  const special = new Map([...added].filter(([, token]) => token.special).map(([id, token]) => [token.content, id]));
  const slow = (text: string) => (text === "" ? [] : tokenizer.encode(text, { add_special_tokens: false }).ids);
  const bytes = tokenBytes(tokenizer);
  return {
    ...{ vocab_size, special, bytes },
    added: new Set(added.keys()),
    encode: wordEncoder(tokenizer, json) ?? slow,
    decode: byteDecoder(bytes, new Set(special.values())),
  };
}

function refuse(dir: string, message: string, cause?: unknown): DriverError {
  return new DriverError("MODEL_INVALID", `Cannot use the tokenizer of ${dir}: ${message}`, {
    hint: "Use a folder as save_pretrained of the tokenizer writes it.",
    facts: { dir },
    cause,
  });
}

function construct(dir: string, json: unknown): Tokenizer {
  try {
    return new Tokenizer(json as object, {});
  } catch (cause) {
    throw refuse(dir, (cause as Error).message, cause);
  }
}

/** The number of tokens, once it is sure that their ids are 0, 1, 2, ... and that no two spell the same. */
function validateContiguous(dir: string, tokenizer: Tokenizer): number {
  // A gap shows up as a token that is undefined, whatever the package's types say.
  const vocab = [...(tokenizer.get_vocab() as Map<string | undefined, number>)].filter(
    ([token]) => token !== undefined,
  );
  const ids = new Set(vocab.map(([, id]) => id));
  for (let id = 0; id < ids.size; id++) {
    if (!ids.has(id)) throw refuse(dir, `expected ids without gaps, got ${ids.size} tokens and none with id ${id}`);
  }
  return ids.size;
}

function tokenBytes(tokenizer: Tokenizer): TokenCodec["bytes"] {
  const alphabet = byteAlphabet();
  const cache = new Map<number, Uint8Array>();
  return (id) => {
    const cached = cache.get(id);
    if (cached !== undefined) return cached;
    const token = tokenizer.id_to_token(id);
    if (token === undefined) return new Uint8Array();
    const bytes = [...token].map((character) => alphabet.get(character));
    const made = bytes.every((byte) => byte !== undefined) ? Uint8Array.from(bytes as number[]) : Buffer.from(token);
    cache.set(id, made);
    return made;
  };
}

/** Joins the bytes of all tokens but the special ones; bytes that are not UTF-8 become U+FFFD, and nothing is cleaned up. */
function byteDecoder(bytes: TokenCodec["bytes"], skipped: ReadonlySet<number>): TokenCodec["decode"] {
  const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });
  return (ids) => utf8.decode(Buffer.concat(ids.filter((id) => !skipped.has(id)).map(bytes)));
}
