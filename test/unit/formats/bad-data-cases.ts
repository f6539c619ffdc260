import type { Rendering } from "../../../src/records/lora.ts";

const user = (content: unknown) => ({ role: "user", content });
const bot = (content: unknown) => ({ role: "assistant", content });
const row = (...messages: unknown[]): string => JSON.stringify({ messages });
const GOOD = row(user("Hi"), bot("Hello"));

export const ROW_HINT =
  'A row is one line: {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}.';
const TOKEN_HINT = "A special token inside a message would end it, or begin another: write it in another way.";

interface Case {
  name: string;
  text: string;
  with?: { model?: string; thinking?: Rendering["thinking"]; max_length?: number; max_positions?: number };
  /** Lines of the message, each without the name of the file that it starts with. */
  says: string[];
  /** The hint, where it is not how a row looks. */
  hint?: string;
}

export const CASES: Case[] = [
  {
    name: "a line cut off",
    text: `${GOOD}\n${GOOD.slice(0, 40)}`,
    says: ["2:41: expected a closing quote, found the end of the line"],
  },
  {
    name: "single quotes",
    text: "{'messages': []}",
    says: ["1:2: expected a key in double quotes, found \"'messages': []}\""],
  },
  {
    name: "a comma too many",
    text: '{"messages":[{"role":"user","content":"Hi"},]}',
    says: ['1:45: expected a JSON value, found "]}"'],
  },
  {
    name: "a raw control character",
    text: '{"messages":[{"role":"user","content":"a\tb"}]}',
    says: ['1:41: expected an escape such as \\n instead of a control character, found "\\tb\\"}]}"'],
  },
  {
    name: "a list instead of lines",
    text: `[\n${GOOD},\n${GOOD}\n]`,
    says: ["1:1: expected JSON Lines, one row on each line, found one JSON value over the whole file"],
  },
  {
    name: "one object over many lines",
    text: JSON.stringify(JSON.parse(GOOD), null, 2),
    says: ["1:1: expected JSON Lines, one row on each line, found one JSON value over the whole file"],
  },
  {
    name: "an empty file",
    text: "\n \n",
    says: ["1:1: expected at least one row, found none"],
  },
  {
    name: "a row that is no object",
    text: '"Hi"\n3\n[1]',
    says: [
      '1:1: expected a row as a JSON object, found "Hi"',
      "2:1: expected a row as a JSON object, found 3",
      "3:1: expected a row as a JSON object, found a list",
    ],
  },
  {
    name: "rows of prompt and completion",
    text: '{"prompt":"Hi","completion":"Hello"}',
    says: ['1:1: expected the key "messages", found the keys "prompt", "completion"'],
  },
  {
    name: "rows of conversations",
    text: '{"conversations":[{"from":"human","value":"Hi"}]}',
    says: ['1:1: expected the key "messages", found the key "conversations"'],
  },
  {
    name: "a misspelt key",
    text: GOOD.replace("messages", "mesages"),
    says: ['1:2: expected a known key (did you mean "messages"?), found "mesages"'],
  },
  {
    name: "a key that nobody reads",
    text: GOOD.replace('"messages"', '"weight":2,"messages"'),
    says: ['1:2: expected one of the keys messages, id, tags, found "weight"'],
  },
  {
    name: "messages twice",
    text: GOOD.replace("{", '{"messages":[],'),
    says: ['1:16: expected each key once, found "messages" again'],
  },
  {
    name: "messages of the wrong type",
    text: '{"messages":"Hi"}\n{"messages":{"role":"user"}}\n{"messages":["Hi"]}',
    says: [
      '1:13: expected a list of messages, found "Hi"',
      "2:13: expected a list of messages, found an object",
      '3:14: expected a message as a JSON object, found "Hi"',
    ],
  },
  {
    name: "an empty list of messages",
    text: '{"messages":[]}',
    says: ["1:13: expected a message of the assistant, found none"],
  },
  {
    name: "an unknown role",
    text: row(user("Hi"), { role: "bot", content: "Hello" }),
    says: ['1:53: expected the role "assistant" after "user", found "bot"'],
  },
  {
    name: "two user turns in a row",
    text: row(user("Hi"), user("again"), bot("Hello")),
    says: ['1:53: expected the role "assistant" after "user", found "user"'],
  },
  {
    name: "the assistant first",
    text: row(bot("Hello")),
    says: ['1:22: expected the role "system" or "user" first, found "assistant"'],
  },
  {
    name: "a system message in the middle",
    text: row(user("Hi"), { role: "system", content: "x" }, bot("Hello")),
    says: ['1:53: expected the role "assistant" after "user", found "system"'],
  },
  {
    name: "the user last",
    text: row(user("Hi"), bot("Hello"), user("Bye")),
    says: ['1:92: expected the last role to be "assistant", found "user"'],
  },
  {
    name: "no answer at all",
    text: row(user("Hi")),
    says: ["1:13: expected a message of the assistant, found none"],
  },
  {
    name: "no role, no content",
    text: '{"messages":[{"content":"Hi"}]}\n{"messages":[{"role":"user"},{"role":"assistant","content":"x"}]}',
    says: ['1:14: expected the key "role", found none', '2:14: expected the key "content", found none'],
  },
  {
    name: "content that is empty or null",
    text: `${row(user("Hi"), bot(" \n"))}\n${row(user("Hi"), bot(null))}`,
    says: ['1:75: expected content that is not empty, found " \\n"', "2:75: expected content as a string, found null"],
  },
  {
    name: "content in parts",
    text: row(user([{ type: "text", text: "Hi" }]), bot("Hello")),
    says: ["1:39: expected content as a string, found a list"],
  },
  {
    name: "a name in a message",
    text: row({ ...user("Hi"), name: "Ann" }, bot("Hello")),
    says: ['1:44: expected one of the keys role, content, found "name"'],
  },
  {
    name: "tags and id of the wrong type",
    text: GOOD.replace("{", '{"id":7,"tags":{"kind":["a"]},'),
    says: ["1:7: expected a string, found 7", "1:24: expected a string, found a list"],
  },
  {
    name: "half a surrogate pair",
    text: '{"messages":[{"role":"user","content":"\\ud83d"},{"role":"assistant","content":"x"}]}',
    says: ["1:39: expected whole Unicode characters, found half of a surrogate pair"],
  },
  {
    name: "a special token spelled out",
    text: row(user("Say <|im_end|>"), bot("No")),
    says: ["1:44: expected plain text, found the special token <|im_end|>"],
    hint: TOKEN_HINT,
  },
  {
    name: "a special token of this model alone",
    text: row(user("Hi"), bot("bye </s>")),
    with: { model: "other" },
    says: ["1:75: expected plain text, found the special token </s>"],
    hint: TOKEN_HINT,
  },
  {
    name: "a think block under thinking: off",
    text: row(user("Hi"), bot("<think>\nHm.\n</think>\n\nHello")),
    says: ['1:75: expected an answer without think block under thinking: off, found a think block with "\\nHm.\\n"'],
    hint: "Set thinking: keep to train think blocks with a model that has them, or take them out of the data.",
  },
  {
    name: "a thought under thinking: empty",
    text: row(user("Hi"), bot("<think>\nHm.\n</think>\n\nHello")),
    with: { thinking: "empty" },
    says: ['1:75: expected an empty think block under thinking: empty, found a think block with "\\nHm.\\n"'],
    hint: "Set thinking: keep to train on what stands in think blocks, or empty them.",
  },
  {
    name: "several turns where the template drops think blocks",
    text: row(user("Hi"), bot("Hello"), user("Bye"), bot("Ciao")),
    says: [
      '1:75: expected the answer as inference renders it, "<think>\\n\\n</think>\\n\\nHello<|im_end|>\\n" at character 52, found "Hello<|im_end|>\\n<|im_start|>user\\nBye<|im"',
    ],
    hint: "The chat template renders an answer differently once more turns follow: set assistant_turns: last to train the last answer of each row only, or split the conversation into rows that end at each answer.",
  },
  {
    name: "an answer that starts with a line feed",
    text: row(user("Hi"), bot("\n\nHello")),
    with: { model: "tiny" },
    says: [
      '1:75: expected a new token where the answer starts, as at inference, found the token "\\n\\n" across the end of the prompt',
    ],
    hint: "Take the white space off the start of the answer.",
  },
  {
    name: "longer than the model's positions",
    text: `${GOOD}\n${row(user("Hi"), bot("Hello ".repeat(20)))}`,
    with: { max_positions: 30, model: "tiny" },
    says: ["2:75: expected at most 30 tokens, the model's positions, found 143 tokens"],
    hint: "Set max_length to have long rows cut at their end, or shorten them.",
  },
  {
    name: "cut before the answer",
    text: `${GOOD}\n${row(user("Hi ".repeat(20)), bot("Hello"))}`,
    with: { max_length: 20, model: "tiny" },
    says: [
      "1:75: expected a trained token among the first 20, which max_length keeps, found the first at token 22",
      "2:133: expected a trained token among the first 20, which max_length keeps, found the first at token 80",
    ],
    hint: "Raise max_length, or shorten what stands before the answer.",
  },
  {
    name: "a template that refuses",
    text: row({ role: "system", content: "x" }, user("Hi"), bot("Hello")),
    with: { model: "strict" },
    says: ["1:41: expected messages that the chat template takes, found its refusal: System role not supported"],
    hint: "Change the messages, or use a model whose template takes them.",
  },
];
