import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type ChatFormat, loadChatFormat, thinkingKwargs } from "../../../src/formats/chat.ts";
import { parseDataset } from "../../../src/formats/dataset.ts";
import { trainingRows } from "../../../src/formats/training-rows.ts";
import type { Rendering } from "../../../src/records/lora.ts";
import { CASES, ROW_HINT } from "./bad-data-cases.ts";
import { failure, TINY_TEMPLATE, tempDir, tinyTokenizer, writeTokenizer } from "./fixtures.ts";

const NANO = join(import.meta.dirname, "../../../models/nano");

type Json = { added_tokens: Record<string, unknown>[]; model: { vocab: Record<string, number>; merges: string[][] } };

/** The tiny tokenizer with a token for two line feeds, as Qwen's has. */
function withLineFeeds(): Json {
  const tokenizer = tinyTokenizer() as Json;
  tokenizer.model.vocab.ĊĊ = 261;
  tokenizer.model.merges.push(["Ċ", "Ċ"]);
  return tokenizer;
}

function withEndTag(): Json {
  const tokenizer = tinyTokenizer() as Json;
  tokenizer.added_tokens.push({ ...tokenizer.added_tokens[2], id: 261, content: "</s>" });
  return tokenizer;
}

const STRICT = `{%- if messages[0].role == 'system' %}{{- raise_exception('System role not supported') }}{%- endif %}${TINY_TEMPLATE}`;

describe("data that cannot be trained on is refused with its place, in full", () => {
  const models = new Map<string, ChatFormat>();
  const dirs: ReturnType<typeof tempDir>[] = [];
  const make = (config: Record<string, unknown>, tokenizer: Json) => {
    const dir = tempDir();
    dirs.push(dir);
    writeTokenizer(dir.path, config, tokenizer);
    return loadChatFormat(dir.path);
  };
  beforeAll(async () => {
    models.set("nano", await loadChatFormat(NANO));
    models.set("tiny", await make({}, withLineFeeds()));
    models.set("other", await make({}, withEndTag()));
    models.set("strict", await make({ chat_template: STRICT }, tinyTokenizer() as Json));
  });
  afterAll(() => {
    for (const dir of dirs) dir[Symbol.dispose]();
  });

  test.each(CASES)("$name", async ({ text, with: options = {}, says, hint = ROW_HINT }) => {
    const { model = "nano", thinking = "off", max_length = null, max_positions = 1000 } = options;
    const chat = models.get(model) as ChatFormat;
    const rendering: Rendering = { rendering: "clean", thinking, assistant_turns: "all" };
    const error = await failure(() => {
      const rows = parseDataset(text, "d.jsonl");
      trainingRows(rows, "d.jsonl", chat, thinkingKwargs(chat.template, thinking), rendering, {
        max_length,
        max_positions,
      });
    });
    expect(error.code).toBe("DATA_INVALID");
    expect(error.message).toBe(says.map((line) => `d.jsonl:${line}`).join("\n"));
    expect(error.hint).toBe(hint);
    const listed = error.faults.map(
      ({ line, column, expected, found }) => `${line}:${column}: expected ${expected}, found ${found}`,
    );
    expect(listed).toEqual(says);
  });
});
