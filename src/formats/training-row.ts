import { createHash } from "node:crypto";
import { DriverError } from "../errors.ts";
import type { ChatTemplateKwargs } from "../records/lora.ts";
import type { Message } from "./dataset.ts";

/** `token_ids` and `targets` have the same length; a target is a token whose loss counts. */
export interface TrainingRow {
  token_ids: number[];
  targets: boolean[];
}

export interface RenderOptions {
  add_generation_prompt: boolean;
  kwargs: ChatTemplateKwargs;
}

/** What of a chat format decides a training row. */
interface Format {
  eos_token: string;
  findSpecialToken(text: string): string | undefined;
  encode(text: string): number[];
  render(messages: readonly Message[], options: RenderOptions): string;
}

/** A piece of the rendered conversation. Pieces are tokenised one by one, so that no token crosses their borders. */
interface Segment {
  text: string;
  target: boolean;
}

const SHOWN_CHARS = 40;

/**
 * The tokens of a conversation, with the answers of the assistant and the tokens that end them as targets.
 *
 * What is trained is exactly what inference will see: the render of the conversation up to each answer must begin with
 * the prompt that inference renders, token for token.
 *
 * @throws DriverError DATA_INVALID when it does not, naming the turn: the model would be trained on another prompt than
 * it is asked with later, and nothing else would show it.
 */
export function trainingRow(format: Format, messages: readonly Message[], kwargs: ChatTemplateKwargs): TrainingRow {
  for (const [turn, { content }] of messages.entries()) {
    const spelled = format.findSpecialToken(content);
    if (spelled !== undefined) throw refuse(turn, `expected plain text, got the special token ${spelled} spelled out`);
  }
  const segments = splitTargets(format, messages, kwargs);
  const token_ids: number[] = [];
  const targets: boolean[] = [];
  for (const { text, target } of segments) {
    const ids = format.encode(text);
    token_ids.push(...ids);
    targets.push(...ids.map(() => target));
  }
  const whole = format.encode(segments.map(({ text }) => text).join(""));
  const parted = firstDifference(whole, token_ids);
  if (parted !== null) {
    throw refuse(
      messages.length - 1,
      `expected the same tokens in one piece and in parts, got others from token ${parted} on`,
    );
  }
  return { token_ids, targets };
}

function refuse(turn: number, message: string, hint?: string): DriverError {
  return new DriverError("DATA_INVALID", `Cannot train on message ${turn + 1}: ${message}`, {
    hint: hint ?? "Change the message, or use a model whose chat template keeps it as it is.",
    facts: { turn },
  });
}

function splitTargets(format: Format, messages: readonly Message[], kwargs: ChatTemplateKwargs): Segment[] {
  const whole = format.render(messages, { add_generation_prompt: false, kwargs });
  const segments: Segment[] = [];
  let done = 0;
  for (const [turn, { role }] of messages.entries()) {
    if (role !== "assistant") continue;
    const { prompt, target, full } = answer(format, messages, turn, kwargs);
    validateExtends(turn, whole, full, done);
    segments.push({ text: whole.slice(done, prompt.length), target: false }, { text: target, target: true });
    done = prompt.length + target.length;
  }
  if (done === 0) throw refuse(messages.length - 1, "expected a turn of the assistant, got none", "Add an answer.");
  segments.push({ text: whole.slice(done), target: false });
  return segments;
}

/** The prompt of one answer, the text from there to the token that ends it, and the whole render up to this turn. */
function answer(format: Format, messages: readonly Message[], turn: number, kwargs: ChatTemplateKwargs) {
  const prompt = format.render(messages.slice(0, turn), { add_generation_prompt: true, kwargs });
  const full = format.render(messages.slice(0, turn + 1), { add_generation_prompt: false, kwargs });
  if (!full.startsWith(prompt)) throw notExtended(turn, prompt, full, "Check the arguments of the chat template.");
  const rest = full.slice(prompt.length);
  const found = rest.split(format.eos_token).length - 1;
  if (found !== 1) {
    throw refuse(
      turn,
      `expected ${format.eos_token} once, where the chat template ends the turn, got it ${found} times in ${tail(rest)}`,
      "The model would not learn where to stop: set eos_token to the token that ends a turn in the template.",
    );
  }
  return { prompt, full, target: rest.slice(0, rest.indexOf(format.eos_token) + format.eos_token.length) };
}

/** Checks that an answer is rendered in the whole conversation as it is at its own turn. */
function validateExtends(turn: number, whole: string, full: string, done: number): void {
  if (!whole.startsWith(full) || full.length < done) {
    throw notExtended(
      turn,
      full,
      whole,
      "The template renders this answer differently once more turns follow: split the conversation into rows that end at each assistant turn.",
    );
  }
}

function notExtended(turn: number, expected: string, got: string, hint: string): DriverError {
  const at = firstDifference([...expected], [...got]) ?? 0;
  const points = (text: string) => JSON.stringify([...text].slice(at, at + SHOWN_CHARS).join(""));
  return refuse(
    turn,
    `the training render does not extend the prompt that inference renders: expected ${points(expected)}, got ${points(got)} at character ${at}`,
    hint,
  );
}

const tail = (text: string): string => JSON.stringify(text.slice(-SHOWN_CHARS));

function firstDifference<T>(a: readonly T[], b: readonly T[]): number | null {
  const length = Math.max(a.length, b.length);
  for (let i = 0; i < length; i++) if (a[i] !== b[i]) return i;
  return null;
}

/** What `DataReady` reports of the same rows; `longest_row_tokens` and the other counts are in tokens. */
export interface Digests {
  rows: number;
  tokens: number;
  target_tokens: number;
  longest_row_tokens: number;
  token_ids_sha256: string;
  targets_sha256: string;
}

/** Counts and hashes of rows: decimals joined by one space, each row ended by "\n"; targets likewise as 0 and 1. */
export function digests(rows: Iterable<TrainingRow>): Digests {
  const ids_hash = createHash("sha256");
  const targets_hash = createHash("sha256");
  const counts = { rows: 0, tokens: 0, target_tokens: 0, longest_row_tokens: 0 };
  for (const { token_ids, targets } of rows) {
    ids_hash.update(`${token_ids.join(" ")}\n`);
    targets_hash.update(`${targets.map((target) => (target ? 1 : 0)).join(" ")}\n`);
    counts.rows += 1;
    counts.tokens += token_ids.length;
    counts.target_tokens += targets.filter((target) => target).length;
    counts.longest_row_tokens = Math.max(counts.longest_row_tokens, token_ids.length);
  }
  return { ...counts, token_ids_sha256: ids_hash.digest("hex"), targets_sha256: targets_hash.digest("hex") };
}
