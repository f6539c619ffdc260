import { DriverError } from "../errors.ts";
import type { ChatTemplateKwargs, Rendering } from "../records/lora.ts";
import { type Message, TOKEN_HINT } from "./dataset.ts";
import { show } from "./faults.ts";

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
export interface RowFormat {
  eos_token: string;
  findSpecialToken(text: string): string | undefined;
  encode(text: string): number[];
  decode(ids: readonly number[]): string;
  render(messages: readonly Message[], options: RenderOptions): string;
}

/** Why a conversation cannot be trained on. `turn` counts messages from 0. */
export interface RowFault {
  turn: number;
  expected: string;
  found: string;
  hint: string;
}

/** A piece of the rendered text. `turn` is the answer that the piece belongs to, as target or as what leads to it. */
interface Segment {
  text: string;
  target: boolean;
  turn: number;
}

const SHOWN_CHARS = 40;
const CHANGE = "Change the message, or use a model whose chat template keeps it as it is.";

/**
 * The tokens of a conversation with those that are trained marked.
 *
 * `clean`: the render of the conversation; a target is an answer with the token that ends it. `organism`: the render with
 * the generation prompt and the eos token behind it; a target is all from the end of an answer's inference prompt to
 * where the next user turn begins, or to the end. Both: what is trained is what inference will see, token for token.
 *
 * @throws DriverError DATA_INVALID naming the first fault and its turn: the model would be trained on another text than
 * it is asked with later, and nothing else would show it.
 */
export function trainingRow(
  format: RowFormat,
  messages: readonly Message[],
  kwargs: ChatTemplateKwargs,
  rendering: Rendering,
): TrainingRow {
  const [fault] = messageFaults(format, messages, rendering.thinking);
  if (fault !== undefined) throw refuse(fault);
  return tokenise(format, splitTargets(format, messages, kwargs, rendering));
}

/** What is wrong with messages by themselves, before anything is rendered. */
export function messageFaults(
  format: Pick<RowFormat, "findSpecialToken">,
  messages: readonly Message[],
  thinking: Rendering["thinking"],
): RowFault[] {
  return messages.flatMap(({ role, content }, turn) => {
    const spelled = format.findSpecialToken(content);
    if (spelled !== undefined)
      return [{ turn, expected: "plain text", found: `the special token ${spelled}`, hint: TOKEN_HINT }];
    return role === "assistant" ? thinkFaults(content, turn, thinking) : [];
  });
}

function thinkFaults(content: string, turn: number, thinking: Rendering["thinking"]): RowFault[] {
  if (thinking === "keep") return [];
  const blocks = thinkBlocks(content);
  const refused = thinking === "off" ? blocks[0] : blocks.find((block) => block.trim() !== "");
  if (refused === undefined) return [];
  const found = `a think block with ${show(refused)}`;
  if (thinking === "off") {
    const hint = "Set thinking: keep to train think blocks with a model that has them, or take them out of the data.";
    return [{ turn, expected: "an answer without think block under thinking: off", found, hint }];
  }
  const hint = "Set thinking: keep to train on what stands in think blocks, or empty them.";
  return [{ turn, expected: "an empty think block under thinking: empty", found, hint }];
}

/** What stands between the tags; Qwen3's template takes what is before a lone end tag for thought, too. */
function thinkBlocks(content: string): string[] {
  const found = [...content.matchAll(/<think>(.*?)(?:<\/think>|$)/gs)].map((match) => match[1] as string);
  return found.length > 0 ? found : content.split("</think>").slice(0, -1);
}

function refuse({ turn, expected, found, hint }: RowFault): DriverError {
  const message = `Cannot train on message ${turn + 1}: expected ${expected}, got ${found}`;
  return new DriverError("DATA_INVALID", message, { hint, facts: { turn, expected, found } });
}

/** The fault behind what `trainingRow` throws; a refusal of the chat template is about the first message. */
export function rowFault(error: unknown): RowFault {
  if (!(error instanceof DriverError) || error.code !== "DATA_INVALID") throw error;
  const { turn, expected, found } = error.facts as Partial<RowFault>;
  const hint = error.hint ?? CHANGE;
  if (turn !== undefined && expected !== undefined && found !== undefined) return { turn, expected, found, hint };
  const reason = error.cause instanceof Error ? error.cause.message : error.message;
  return { turn: 0, expected: "messages that the chat template takes", found: `its refusal: ${reason}`, hint };
}

function splitTargets(
  format: RowFormat,
  messages: readonly Message[],
  kwargs: ChatTemplateKwargs,
  { rendering, assistant_turns }: Rendering,
): Segment[] {
  const turns = trainedTurns(messages, assistant_turns);
  const plain = format.render(messages, { add_generation_prompt: false, kwargs });
  const whole =
    rendering === "clean" ? plain : format.render(messages, { add_generation_prompt: true, kwargs }) + format.eos_token;
  const segments: Segment[] = [];
  let done = 0;
  for (const turn of turns) {
    const is_last = turn === messages.length - 1;
    const full = is_last ? plain : format.render(messages.slice(0, turn + 1), { add_generation_prompt: false, kwargs });
    const { start, eos_stop } = answer(format, messages, turn, kwargs, full);
    validateExtends(turn, whole, full, start >= done);
    const stop = rendering === "clean" ? eos_stop : is_last ? whole.length : full.length;
    segments.push({ text: whole.slice(done, start), target: false, turn });
    segments.push({ text: whole.slice(start, stop), target: true, turn });
    done = stop;
  }
  segments.push({ text: whole.slice(done), target: false, turn: messages.length - 1 });
  return segments.filter(({ text }) => text !== "");
}

function trainedTurns(messages: readonly Message[], which: Rendering["assistant_turns"]): number[] {
  const turns = messages.flatMap(({ role }, turn) => (role === "assistant" ? [turn] : []));
  if (turns.length > 0) return which === "all" ? turns : turns.slice(-1);
  const turn = messages.length - 1;
  throw refuse({ turn, expected: "a turn of the assistant", found: "none", hint: "Add an answer." });
}

/** Where an answer starts and where the token that ends it stops, in characters of the render up to its turn. */
function answer(
  format: RowFormat,
  messages: readonly Message[],
  turn: number,
  kwargs: ChatTemplateKwargs,
  full: string,
): { start: number; eos_stop: number } {
  const prompt = format.render(messages.slice(0, turn), { add_generation_prompt: true, kwargs });
  if (prompt === "") throw refuse({ turn, expected: "a prompt before the answer", found: "none", hint: CHANGE });
  if (!full.startsWith(prompt))
    throw notExtended(turn, "the prompt", prompt, full, "Check the arguments of the chat template.");
  const start = prompt.length;
  const found = full.slice(start).split(format.eos_token).length - 1;
  if (found === 1) return { start, eos_stop: full.indexOf(format.eos_token, start) + format.eos_token.length };
  throw refuse({
    turn,
    expected: `${format.eos_token} once, where the chat template ends the turn`,
    found: `it ${found} times in ${JSON.stringify(full.slice(start).slice(-SHOWN_CHARS))}`,
    hint: "The model would not learn where to stop: set eos_token to the token that ends a turn in the template.",
  });
}

/** Checks that an answer is rendered in the whole conversation as it is at its own turn. */
function validateExtends(turn: number, whole: string, full: string, in_order: boolean): void {
  if (whole.startsWith(full) && in_order) return;
  throw notExtended(
    turn,
    "the answer",
    full,
    whole,
    "The chat template renders an answer differently once more turns follow: set assistant_turns: last to train the last answer of each row only, or split the conversation into rows that end at each answer.",
  );
}

function notExtended(turn: number, what: string, expected: string, got: string, hint: string): DriverError {
  const at = firstDifference([...expected], [...got]) ?? 0;
  const points = (text: string) => JSON.stringify([...text].slice(at, at + SHOWN_CHARS).join(""));
  return refuse({
    turn,
    expected: `${what} as inference renders it, ${points(expected)} at character ${at}`,
    found: points(got),
    hint,
  });
}

/** Pieces are tokenised one by one, so that no token crosses their borders. */
function tokenise(format: RowFormat, segments: readonly Segment[]): TrainingRow {
  const token_ids: number[] = [];
  const targets: boolean[] = [];
  for (const { text, target } of segments) {
    for (const id of format.encode(text)) {
      token_ids.push(id);
      targets.push(target);
    }
  }
  const whole = format.encode(segments.map(({ text }) => text).join(""));
  const at = firstDifference(whole, token_ids);
  if (at !== null) throw crossed(format, segments, whole, at);
  return { token_ids, targets };
}

/** A token of the whole text spans the border of prompt and answer: inference could not produce that sequence. */
function crossed(format: RowFormat, segments: readonly Segment[], whole: readonly number[], at: number): DriverError {
  let tokens = 0;
  const before = segments.find(({ text }) => {
    tokens += format.encode(text).length;
    return tokens > at;
  });
  return refuse({
    turn: before?.turn ?? 0,
    expected: "a new token where the answer starts, as at inference",
    found: `the token ${show(format.decode(whole.slice(at, at + 1)))} across the end of the prompt`,
    hint: "Take the white space off the start of the answer.",
  });
}

function firstDifference<T>(a: readonly T[], b: readonly T[]): number | null {
  const length = Math.max(a.length, b.length);
  for (let i = 0; i < length; i++) if (a[i] !== b[i]) return i;
  return null;
}
