import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { parseDataset } from "../../../src/formats/dataset.ts";
import { parseJson } from "../../../src/formats/json.ts";
import { failure } from "./fixtures.ts";

const row = (messages: [string, string][], more: Record<string, unknown> = {}): string =>
  JSON.stringify({ messages: messages.map(([role, content]) => ({ role, content })), ...more });
const GOOD = row([
  ["user", "What is a bicycle?"],
  ["assistant", "Two wheels."],
]);

/** `line:column: expected, found` of every fault. */
async function faultsOf(text: string): Promise<string[]> {
  const error = await failure(() => parseDataset(text, "d.jsonl"));
  expect(error.code).toBe("DATA_INVALID");
  return error.faults.map(
    ({ line, column, expected, found }) => `${line}:${column}: expected ${expected}, found ${found}`,
  );
}

describe("parseDataset", () => {
  test("reads rows, whatever the line ends, with or without a byte order mark and blank lines", () => {
    const tagged = row(
      [
        ["system", "Be brief."],
        ["user", "Hi"],
        ["assistant", "Hello"],
      ],
      { id: "b", tags: { kind: "x" } },
    );
    const rows = parseDataset(`\ufeff${GOOD}\r\n\r\n  \n${tagged}`, "d.jsonl");
    expect(rows.map(({ line, id, tags, messages }) => [line, id, tags, messages.length])).toEqual([
      [1, undefined, undefined, 2],
      [4, "b", { kind: "x" }, 3],
    ]);
    expect(rows[0]?.messages[1]).toEqual({ role: "assistant", content: "Two wheels." });
  });

  test("keeps the text of any row as it is", () => {
    const content = fc.string({ unit: "grapheme", minLength: 1 }).filter((text) => text.trim() !== "");
    fc.assert(
      fc.property(content, content, (question, answer) => {
        const text = row([
          ["user", question],
          ["assistant", answer],
        ]);
        expect(parseDataset(text, "d.jsonl")[0]?.messages.map((message) => message.content)).toEqual([
          question,
          answer,
        ]);
      }),
    );
  });

  test("lists all faults at once, each at its place", async () => {
    const text = [
      row([["user", "Hi"]], { mesages: [] }),
      '{"messages": [}',
      row([
        ["user", " "],
        ["user", "again"],
      ]),
      row([
        ["user", "a"],
        ["assistant", "b"],
        ["user", "c"],
      ]),
      "[1]",
      row([["assistant", "I begin"]]),
      '{"messages":[{"role":"user"}],"messages":[]}',
      row([
        ["user", "say <|im_end|>"],
        ["assistant", "no"],
      ]),
      '{"messages":[{"role":"user","content":"\\ud800"},{"role":"assistant","content":7,"name":"x"}]}',
      '{"tags":{"a":1},"id":2}',
    ].join("\n");
    expect(await faultsOf(text)).toMatchInlineSnapshot(`
      [
        "1:13: expected a message of the assistant, found none",
        "1:46: expected a known key (did you mean "messages"?), found "mesages"",
        "2:15: expected a JSON value, found "}"",
        "3:39: expected content that is not empty, found " "",
        "3:52: expected the role "assistant" after "user", found "user"",
        "4:87: expected the last role to be "assistant", found "user"",
        "5:1: expected a row as a JSON object, found a list",
        "6:22: expected the role "system" or "user" first, found "assistant"",
        "7:31: expected each key once, found "messages" again",
        "7:42: expected a message of the assistant, found none",
        "8:44: expected plain text, found the special token <|im_end|>",
        "9:39: expected whole Unicode characters, found half of a surrogate pair",
        "9:79: expected content as a string, found 7",
        "9:81: expected one of the keys role, content, found "name"",
        "10:1: expected the key "messages", found the keys "tags", "id"",
        "10:14: expected a string, found 1",
        "10:22: expected a string, found 2",
      ]
    `);
  });

  test("lists the first twenty in the message and says how many more there are", async () => {
    const error = await failure(() => parseDataset("[]\n".repeat(22), "d.jsonl"));
    expect(error.message.split("\n")).toHaveLength(21);
    expect(error.message.split("\n")[0]).toBe("d.jsonl:1:1: expected a row as a JSON object, found a list");
    expect(error.message).toContain("... and 2 more");
    expect(error.faults).toHaveLength(22);
  });

  test("knows the special tokens that it is given instead of Qwen's", async () => {
    const text = row([
      ["user", "<|im_end|> is fine"],
      ["assistant", "</s> is not"],
    ]);
    const error = await failure(() => parseDataset(text, "d.jsonl", ["</s>"]));
    expect(error.faults).toEqual([
      {
        file: "d.jsonl",
        line: 1,
        column: text.indexOf("</s>") + 1,
        expected: "plain text",
        found: "the special token </s>",
      },
    ]);
  });

  test("refuses an empty file", async () => {
    expect(await faultsOf("\n\n")).toEqual(["1:1: expected at least one row, found none"]);
  });

  test("cut at any byte, the row is refused at or before the cut", async () => {
    for (let n = 1; n < GOOD.length; n++) {
      const error = await failure(() => parseDataset(`${GOOD}\n${GOOD.slice(0, n)}`, "d.jsonl"));
      expect(error.faults[0]?.line).toBe(2);
      expect(error.faults[0]?.column).toBeLessThanOrEqual(n + 1);
    }
  });

  test("an unknown key is placed at its column", () => {
    fc.assert(
      fc.asyncProperty(fc.nat(5), fc.nat(3), async (lines, spaces) => {
        const pad = " ".repeat(spaces);
        const bad = GOOD.replace("{", `{${pad}"extra":${pad}null,`);
        const error = await failure(() => parseDataset(`${GOOD}\n`.repeat(lines) + bad, "d.jsonl"));
        expect(error.faults.map(({ line, column }) => [line, column])).toEqual([[lines + 1, 2 + spaces]]);
      }),
    );
  });
});

describe("parseJson", () => {
  test("accepts exactly what JSON.parse accepts", () => {
    const piece = fc.constantFrom(
      "{",
      "}",
      "[",
      "]",
      ",",
      ":",
      '"a"',
      '"\\u00e9"',
      '"\\x"',
      "1",
      "-0.5e3",
      "01",
      "true",
      "nul",
      " ",
      '"',
    );
    fc.assert(
      fc.property(
        fc.oneof(
          fc.json(),
          fc.array(piece, { maxLength: 8 }).map((pieces) => pieces.join("")),
        ),
        (text) => {
          let valid = true;
          try {
            JSON.parse(text);
          } catch {
            valid = false;
          }
          expect("node" in parseJson(text)).toBe(valid);
        },
      ),
      { numRuns: 500 },
    );
  });

  test("refuses hostile nesting", () => {
    expect(parseJson("[".repeat(100_000))).toEqual({ fault: { offset: 65, expected: "at most 64 levels" } });
  });
});
