import type { ChatFormat } from "./chat.ts";
import type { TrainingRow } from "./training-row.ts";

/** One token as a person sees it, or several that only together are whole characters. */
export interface TokenPiece {
  ids: number[];
  text: string;
  is_target: boolean;
  /** True of tokens that are no piece of text: the special ones and such as `<think>`. */
  is_special: boolean;
}

/** How many tokens one character can be spread over: its bytes in UTF-8. */
const MOST_TOKENS = 4;

/** The tokens of a row with their texts; joined they are the rendered row. */
export function tokenPieces(
  chat: Pick<ChatFormat, "tokenBytes" | "isAddedToken">,
  { token_ids, targets }: TrainingRow,
): TokenPiece[] {
  const pieces: TokenPiece[] = [];
  for (let start = 0; start < token_ids.length; ) {
    const count = wholeCharacters(chat, token_ids.slice(start, start + MOST_TOKENS));
    const ids = token_ids.slice(start, start + count);
    const text = decode(ids.map((id) => chat.tokenBytes(id)));
    pieces.push({ ids, text, is_target: targets[start] === true, is_special: chat.isAddedToken(ids[0] as number) });
    start += count;
  }
  return pieces;
}

/** How many of the tokens make whole characters together; 1 when none do, as where a row is cut inside a character. */
function wholeCharacters(chat: Pick<ChatFormat, "tokenBytes">, ids: readonly number[]): number {
  for (let count = 1; count <= ids.length; count++) {
    try {
      utf8.decode(Buffer.concat(ids.slice(0, count).map((id) => chat.tokenBytes(id))));
      return count;
    } catch {
      // a character goes on in the next token
    }
  }
  return 1;
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

function decode(bytes: readonly Uint8Array[]): string {
  const joined = Buffer.concat(bytes);
  try {
    return utf8.decode(joined);
  } catch {
    return [...joined].map((byte) => (byte < 0x80 ? String.fromCharCode(byte) : `\\x${byte.toString(16)}`)).join("");
  }
}

/**
 * Characters that would not be seen, or that would change how the rest is shown: controls, bidirectional overrides, zero
 * widths, and the tags in which text can be hidden. Line feeds and what joins emoji and letters stay.
 */
const UNSEEN =
  /(?!\n)[\p{Cc}\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]|[\u{e0000}-\u{e007f}]|\p{Surrogate}/gu;

const NAMES: Readonly<Record<string, string>> = { "\t": "\\t", "\r": "\\r" };

/** Text of data as it may be shown: what would not be seen is written as `\t` or `\u{200b}`. */
export function visible(text: string): string {
  return text.replace(UNSEEN, (c) => NAMES[c] ?? `\\u{${(c.codePointAt(0) ?? 0).toString(16)}}`);
}

/** What the chat template writes before an answer, e.g. `<|im_start|>assistant\n`. */
export function promptTail(chat: Pick<ChatFormat, "render">, kwargs: Parameters<ChatFormat["promptIds"]>[1]): string {
  const messages = [{ role: "user" as const, content: "x" }];
  const whole = chat.render(messages, { add_generation_prompt: true, kwargs });
  const plain = chat.render(messages, { add_generation_prompt: false, kwargs });
  return whole.startsWith(plain) ? whole.slice(plain.length) : whole;
}
