import { join } from "node:path";
import fc from "fast-check";
import { beforeAll, describe, expect, test } from "vitest";
import { renderRow, rowHead } from "../../../src/cli/render/rows.ts";
import { type ChatFormat, loadChatFormat, thinkingKwargs } from "../../../src/formats/chat.ts";
import { choosePreviewRows } from "../../../src/formats/preview/choose.ts";
import { type PreviewPage, previewHtml } from "../../../src/formats/preview/page.ts";
import { type TokenPiece, tokenPieces, visible } from "../../../src/formats/token-pieces.ts";
import type { TokenRow } from "../../../src/formats/training-rows.ts";
import type { Rendering } from "../../../src/records/lora.ts";
import { talk } from "./rows.ts";

const NANO = join(import.meta.dirname, "../../../models/nano");
const ORGANISM: Rendering = { rendering: "organism", thinking: "keep", assistant_turns: "all" };

describe("tokens as a person sees them", () => {
  let chat: ChatFormat;
  beforeAll(async () => {
    chat = await loadChatFormat(NANO);
  });
  const piecesOf = (question: string, answer: string): TokenPiece[] =>
    tokenPieces(chat, chat.trainingRow(talk(question, answer), thinkingKwargs(chat.template, "keep"), ORGANISM));

  test("joined, the pieces are the rendered row, and no token is lost", () => {
    const content = fc.string({ unit: "grapheme", minLength: 1 }).map((text) => `a${text.normalize("NFC")}`);
    fc.assert(
      fc.property(content, content, (question, answer) => {
        const kwargs = thinkingKwargs(chat.template, "keep");
        const whole = chat.render(talk(question, answer), { add_generation_prompt: true, kwargs }) + chat.eos_token;
        const pieces = piecesOf(question, answer);
        expect(pieces.map(({ text }) => text).join("")).toBe(whole);
        expect(pieces.flatMap(({ ids }) => ids)).toEqual(chat.encode(whole));
      }),
    );
  });

  test("a row cut inside a character shows its bytes", () => {
    const ids = chat.encode("👍").slice(0, 2);
    const pieces = tokenPieces(chat, { token_ids: ids, targets: [true, true] });
    expect(pieces.map(({ text }) => text)).toEqual(["\\xf0", "\\x9f"]);
  });

  test("without colour, trained tokens stand in brackets", () => {
    expect(renderRow(piecesOf("Hi\nyou", "Hello 👍"), { color: false, borders: false })).toBe(`  <|im_start|>user↵
  Hi↵
  you<|im_end|>↵
  <|im_start|>assistant↵
  ⟦Hello 👍<|im_end|>↵
  <|im_start|>assistant↵
  <|im_end|>⟧`);
  });

  test("on demand, the end of every token is shown", () => {
    const row = tokenPieces(chat, { token_ids: chat.encode("the 👍\n"), targets: Array(7).fill(false) });
    expect(renderRow(row, { color: false, borders: true })).toBe("  t·he· ·👍(4)·↵·");
  });

  test("in colour, trained tokens are green and nothing is bracketed", () => {
    const shown = renderRow(piecesOf("Hi", "Hello"), { color: true, borders: false });
    expect(shown).toContain("\u001b[1;32m<|im_end|>\u001b[0m");
    expect(shown).not.toMatch(/[⟦⟧]/);
  });

  test("the data's own control characters are spelled out", () => {
    expect(visible("a\tb\u001b[31m\u202e\u200b\u{e0041}\u0085\r\n👩‍🚀")).toBe(
      "a\\tb\\u{1b}[31m\\u{202e}\\u{200b}\\u{e0041}\\u{85}\\r\n👩‍🚀",
    );
    const shown = renderRow(piecesOf("\u001b[2J", "\u009b1m"), { color: false, borders: false });
    // biome-ignore lint/suspicious/noControlCharactersInRegex: that there is none is the point
    expect(shown).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/);
  });

  test("heads say what was cut", () => {
    expect(rowHead({ line: 3, tokens: 1200, targets: 40, cut_tokens: 0 })).toBe("line 3: 1,200 tokens, 40 trained");
    expect(rowHead({ line: 3, tokens: 8, targets: 4, cut_tokens: 1 })).toBe(
      "line 3: 8 tokens, 4 trained, 1 token cut off its end",
    );
  });
});

const made = (line: number, tokens: number, cut_tokens = 0): TokenRow => ({
  ...{ line, cut_tokens, token_ids: Array(tokens).fill(1), targets: Array(tokens).fill(true) },
});

describe("rows of a preview", () => {
  test("the first, the longest, the shortest, the most cut, and others evenly", () => {
    const rows = Array.from({ length: 100 }, (_, i) =>
      made(i + 1, i === 60 ? 90 : i === 70 ? 2 : 20, i === 80 ? 9 : 0),
    );
    const chosen = choosePreviewRows(rows);
    expect(chosen).toHaveLength(12);
    expect(chosen.slice(0, 4).map(({ row }) => row.line)).toEqual([1, 2, 3, 4]);
    expect(chosen.filter(({ why }) => why !== "").map(({ row, why }) => [row.line, why])).toEqual([
      [61, "longest"],
      [71, "shortest"],
      [81, "most cut"],
    ]);
  });

  test("each row once, when there are few", () => {
    expect(choosePreviewRows([])).toEqual([]);
    expect(choosePreviewRows([made(7, 3)])).toEqual([{ row: made(7, 3), why: "longest, shortest" }]);
    expect(choosePreviewRows([made(1, 3), made(2, 4)]).map(({ row }) => row.line)).toEqual([1, 2]);
  });
});

describe("preview.html", () => {
  const piece = (text: string, more: Partial<TokenPiece> = {}): TokenPiece => ({
    ...{ ids: [5], text, is_target: false, is_special: false },
    ...more,
  });
  const page = (pieces: TokenPiece[], cut_tokens = 0): string => {
    const facts: PreviewPage["facts"] = [["rendering", "<clean>"]];
    const rows = [{ line: 4, why: "longest", cut_tokens, pieces }];
    return previewHtml({ title: "T<", lead: "L", counts: [["1", "rows"]], facts, provenance: [], rows });
  };

  test("marks targets and special tokens, and tells the ids", () => {
    const html = page([piece("<|im_end|>", { ids: [9, 8], is_target: true, is_special: true }), piece("a\nb")], 3);
    expect(html).toContain('<span class="t s" title="9 8, trained">&lt;|im_end|&gt;</span>');
    expect(html).toContain('<span title="5">a<u>↵</u>\nb</span>');
    expect(html).toContain("<small>3 tokens</small> <small>2 trained</small> <small>3 tokens cut off its end</small>");
    expect(html).toContain('<pre class="cut">');
  });

  test("nothing of the data becomes markup, and nothing can run or load", () => {
    const html = page([piece("</pre><script>alert(1)</script>\u202e\t\u0000"), piece('"><img src=x onerror=y>')]);
    expect(html).toContain("&lt;script&gt;alert(1)&lt;/script&gt;<i>\\u{202e}</i><i>\\t</i><i>\\u{0}</i>");
    expect(html).not.toMatch(/<script|<img|https?:/);
    expect(html).toMatch(/Content-Security-Policy" content="default-src 'none'; style-src 'sha256-[\w+/=]+'/);
    expect(html).toContain("<title>T&lt;</title>");
  });

  test("of a very long row it shows the start, where the targets begin, and the end", () => {
    const pieces = Array.from({ length: 10_000 }, (_, i) => piece(`w${i} `, { is_target: i >= 7000 }));
    const html = page(pieces);
    expect(html.match(/tokens are not shown here/g)).toHaveLength(2);
    for (const shown of ["w0 ", "w6999 ", "w7000 ", "w9999 "]) expect(html).toContain(`>${shown}</span>`);
    expect(html).toContain("<small>10000 tokens</small>");
    expect(html.length).toBeLessThan(200_000);
  });
});
