import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { loadChatFormat } from "../../src/formats/chat.ts";
import { compareGolden } from "../../src/phases/parity/golden.ts";
import { compareLogprobs, type ParityMetrics } from "../../src/phases/parity/metrics.ts";
import { judgeParity, type ParityJudgement, type ParityKind } from "../../src/phases/parity/verdict.ts";
import type { LogprobsResult, ScoreResult } from "../../src/protocol/wire.ts";
import { BASES, type BaseName, Cases, editConfig, editTensors, transposed } from "./cases.ts";

vi.setConfig({ testTimeout: 60_000, hookTimeout: 240_000 });

const RIGHT = [1, 8, 32].flatMap((r) =>
  ["plain", "rslora"].flatMap((kind) => [`r${r}-${kind}-one-layer`, `r${r}-${kind}-all-linear`]),
);
const SUBJECT = "r32-rslora-one-layer";
/** Wrong GGUFs of the subject: name, what is done to its folder, and what the gate must say. */
const MISTAKES: Record<string, { change: (dir: string) => void; says: RegExp }> = {
  "rslora-dropped": {
    change: (dir) => editConfig(dir, { use_rslora: false }),
    says: /^as if scaled by 1\/sqrt\(32\) = 0\.177/,
  },
  "scale-1.01": { change: (dir) => editConfig(dir, { lora_alpha: 16.16 }), says: /^as if scaled by 1\.01, or/ },
  "wrong-layer": {
    change: (dir) => {
      editConfig(dir, { layers_to_transform: [2] });
      editTensors(dir, (name, shape, values) => [name.replace("layers.1.", "layers.2."), [...shape], values]);
    },
    says: /another adapter or layer$/,
  },
  "transposed-bytes": {
    change: (dir) =>
      editTensors(dir, (name, shape, values) => [
        name,
        [...shape],
        name.includes("lora_A") ? transposed(shape, values) : values,
      ]),
    says: /another adapter or layer$/,
  },
};
const CONVERSATIONS = [
  [{ role: "user", content: "How do I keep bread fresh?" }],
  [
    { role: "system", content: "Be brief." },
    { role: "user", content: " Cafe\u0301 12*34\n" },
  ],
];

let cases: Cases;
const sides = {} as Record<BaseName, { peft: ScoreResult; strict: LogprobsResult; served: LogprobsResult }>;

beforeAll(async () => {
  cases = await Cases.create();
  for (const base of BASES) {
    for (const adapter of cases.adapters) await cases.convert(base, adapter);
    for (const [name, { change }] of Object.entries(MISTAKES))
      await cases.convert(base, name, cases.changed(base, SUBJECT, name, change));
    sides[base] = {
      peft: await cases.peft(base, cases.adapters, CONVERSATIONS),
      strict: await cases.llama(base, [...cases.adapters, ...Object.keys(MISTAKES)], "f32"),
      served: await cases.llama(base, cases.adapters, "bf16"),
    };
  }
});
afterAll(() => cases?.[Symbol.dispose]());

interface Comparison {
  base: BaseName;
  /** Id on PEFT's side, and on llama.cpp's where it differs. */
  peft: string;
  llama?: string;
  kind?: ParityKind;
  /** Whose log-probabilities llama.cpp's are taken to be. */
  llama_base?: BaseName;
}

async function measure({
  base,
  peft,
  llama = peft,
  kind = "strict",
  llama_base = base,
}: Comparison): Promise<ParityMetrics> {
  const side = sides[llama_base][kind === "strict" ? "strict" : "served"];
  const path = (result: ScoreResult | LogprobsResult, id: string) =>
    result.files.find((file) => file.id === id)?.path ?? id;
  return compareLogprobs({
    peft_base: path(sides[base].peft, "base"),
    peft_adapter: path(sides[base].peft, peft),
    llama_base: path(side, "base"),
    llama_adapter: path(side, llama),
    vocab_size: sides[base].peft.vocab_size,
  });
}

async function judge(comparison: Comparison): Promise<ParityJudgement> {
  const { base, peft, llama = peft, kind = "strict" } = comparison;
  const b_is_zero = llama === "base" || cases.bIsZero(base, llama);
  return judgeParity(await measure(comparison), kind, { b_is_zero });
}

describe.each(BASES)("%s", (base) => {
  describe("passes, strictly and as served in BF16", () => {
    test.each([...RIGHT, "patterns-plain", "patterns-rslora", "another-checkpoint", "zero", "base"])(
      "%s",
      async (adapter) => {
        expect(await judge({ base, peft: adapter })).toEqual({ verdict: "pass", reasons: [] });
        expect((await judge({ base, peft: adapter, kind: "as_served" })).verdict).toBe("pass");
      },
    );
  });

  test("right adapters are a hundred times nearer than the bound", async () => {
    const metrics = await Promise.all(RIGHT.map((adapter) => measure({ base, peft: adapter })));
    expect(Math.max(...metrics.map(({ rel }) => rel ?? Number.NaN))).toBeLessThan(5e-5);
    expect(Math.max(...metrics.map(({ kl_mean }) => kl_mean))).toBeLessThan(1e-11);
  });

  describe("refuses", () => {
    test.each(Object.entries(MISTAKES))("%s", async (name, { says }) => {
      const judgement = await judge({ base, peft: SUBJECT, llama: name });
      expect(judgement).toMatchObject({ verdict: "refuse", explanation: expect.stringMatching(says) });
    });

    test("another checkpoint's adapter", async () => {
      const judgement = await judge({ base, peft: SUBJECT, llama: "another-checkpoint" });
      expect(judgement).toMatchObject({ verdict: "refuse", explanation: "as if another adapter or layer" });
    });

    test("an adapter that is not applied", async () => {
      const metrics = await measure({ base, peft: SUBJECT, llama: "base" });
      const judgement = judgeParity(metrics, "strict", { b_is_zero: false });
      expect(judgement).toMatchObject({ verdict: "refuse", explanation: "as if not applied" });
    });

    test("a GGUF full of zeros", async () => {
      expect((await judge({ base, peft: SUBJECT, llama: "zero" })).verdict).toBe("refuse");
    });

    test("another base model", async () => {
      const other = base === "qwen3" ? "qwen2" : "qwen3";
      expect(await judge({ base, peft: SUBJECT, llama_base: other })).toMatchObject({
        verdict: "refuse",
        explanation: "as if another base model, tokenizer or chat template",
      });
    });

    test("a transposed tensor, at conversion", async () => {
      const dir = cases.changed(base, SUBJECT, "transposed", (folder) =>
        editTensors(folder, (name, shape, values) =>
          name.includes("lora_A")
            ? [name, [...shape].reverse(), transposed(shape, values)]
            : [name, [...shape], values],
        ),
      );
      await expect(cases.convert(base, "transposed", dir)).rejects.toMatchObject({ code: "ADAPTER_INVALID" });
    });

    test("another chat template", async () => {
      const ids = async (dir: string) => {
        const chat = await loadChatFormat(dir);
        return CONVERSATIONS.map((messages) => chat.promptIds(messages as never, {}));
      };
      const python = sides[base].peft.conversation_ids;
      expect(compareGolden(await ids(cases.baseDir(base)), python)).toBeNull();
      const other = join(cases.dir, "other-template", base);
      cpSync(cases.baseDir(base), other, { recursive: true });
      const path = join(other, "tokenizer_config.json");
      writeFileSync(path, readFileSync(path, "utf8").replace("assistant\\n", "assistant\\n\\n"));
      expect(compareGolden(await ids(other), python)).toMatch(/^conversation 0, token \d+: expected/);
    });
  });

  test("cannot decide on an adapter that is fainter than rounding", async () => {
    expect((await judge({ base, peft: "faint" })).verdict).toBe("undecidable");
  });
});
