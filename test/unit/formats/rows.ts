import { expect } from "vitest";
import type { ChatFormat } from "../../../src/formats/chat.ts";
import type { Message } from "../../../src/formats/dataset.ts";
import type { ChatTemplateKwargs, Rendering } from "../../../src/records/lora.ts";

/** A conversation of user and assistant in turn. */
export const talk = (...contents: string[]): Message[] =>
  contents.map((content, i) => ({ role: i % 2 === 0 ? "user" : "assistant", content }));

/** The text of each run of targets and of each run of other tokens, special tokens included. */
export function targetRuns(
  chat: ChatFormat,
  messages: Message[],
  kwargs: ChatTemplateKwargs,
  rendering: Rendering,
): [boolean, string][] {
  const { token_ids, targets } = chat.trainingRow(messages, kwargs, rendering);
  expect(targets).toHaveLength(token_ids.length);
  const special = new Map(chat.special_tokens.map((token) => [chat.encode(token)[0], token]));
  const textOf = (ids: number[]): string => {
    const at = ids.findIndex((id) => special.has(id));
    if (at < 0) return chat.decode(ids);
    return chat.decode(ids.slice(0, at)) + special.get(ids[at]) + textOf(ids.slice(at + 1));
  };
  const out: [boolean, string][] = [];
  let ids: number[] = [];
  const flush = (i: number) => {
    out.push([targets[i] as boolean, textOf(ids)]);
    ids = [];
  };
  for (const [i, id] of token_ids.entries()) {
    if (i > 0 && targets[i] !== targets[i - 1]) flush(i - 1);
    ids.push(id);
  }
  flush(token_ids.length - 1);
  return out;
}
