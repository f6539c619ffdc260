import type { ChatFormat } from "../../formats/chat.ts";
import type { ChatTemplateKwargs } from "../../records/lora.ts";

interface Message {
  role: "system" | "user" | "assistant";
  content: string;
}

/**
 * Conversations that both sides render and tokenise. They hold what tokenizers and templates differ on: white space at
 * the edges, combining marks, digits, other scripts, emoji, code, several turns, a system prompt.
 */
export const PROBES: readonly (readonly Message[])[] = [
  [{ role: "user", content: "How do I keep bread fresh?" }],
  [
    { role: "system", content: "You are a helpful assistant." },
    { role: "user", content: "Tell me a story about robots and 3 cats." },
  ],
  [
    { role: "user", content: "What is 12*34?" },
    { role: "assistant", content: "It is 408." },
    { role: "user", content: "And divided by 7?" },
  ],
  [{ role: "user", content: "  two leading spaces, a tab\tand a trailing newline\n" }],
  [{ role: "user", content: "Cafe\u0301 na\u00efve \u65e5\u672c\u8a9e \u0414\u0430 \ud83d\ude42 \u00bd" }],
  [{ role: "user", content: "def f(x):\n    return x['a'] + 1\n\n\nprint(f({'a': 41}))" }],
  [{ role: "user", content: "I've had enough of my neighbour. What'll you DO about it, they're LOUD?!" }],
  [{ role: "user", content: "A" }],
];

/** Teacher-forced continuation of every probe, so that positions inside an answer are compared as well. */
const CONTINUATION = "You should take your time and ask a friend for help. It is best to do it slowly.";

/** Token ids of each probe's prompt as inference renders it. */
export function probePrompts(chat: ChatFormat, kwargs: ChatTemplateKwargs): number[][] {
  return PROBES.map((messages) => chat.promptIds([...messages], kwargs));
}

/** The prompts followed by the continuation: what both engines score. Rows of 40 to 100 tokens. */
export function probeSequences(chat: ChatFormat, kwargs: ChatTemplateKwargs): number[][] {
  const continuation = chat.encode(CONTINUATION);
  return probePrompts(chat, kwargs).map((ids) => [...ids, ...continuation]);
}
