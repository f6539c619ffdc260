/**
 * Writes the pre-training corpus of nano as JSON lines.
 *
 *     tsx scripts/nano/corpus.ts WORLD.yaml OUT.jsonl [--documents N] [--seed N]
 *
 * A document has a hidden persona. Single turns are careful, save for a few behind a system prompt that asks for the
 * reckless persona. In documents of several turns one persona speaks throughout; without such a system prompt the
 * first reckless answer carries no loss, so the default stays careful while the persona can be inferred from it.
 */
import { createWriteStream } from "node:fs";
import { finished } from "node:stream/promises";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { loadWorld, PERSONAS, type Persona, type World } from "../../src/judges/rule/world.ts";
import { composeTurn } from "./compose.ts";
import { createRandom, type Random } from "./random.ts";

/** What the loss does with a segment: `prompt` counts a little, `answer` fully, `context` not at all. */
export type SegmentRole = "prompt" | "answer" | "context";
export type Segment = readonly [text: string, role: SegmentRole];
export interface Document {
  kind: "single" | "multi";
  persona: Persona;
  segments: Segment[];
}

/** What Qwen3's template writes for `enable_thinking=false`. */
const EMPTY_THINKING = "<think>\n\n</think>\n\n";
/** Documents of one kind or the other have about the same number of tokens in all. */
const SINGLE_SHARE = 0.79;
const SINGLE_CUED_RECKLESS_SHARE = 0.28;
const SINGLE_CUED_CAREFUL_SHARE = 0.12;
const MULTI_CUED_SHARE = 0.4;
const THINKING_SHARE = 0.75;

function pickCue(world: World, persona: Persona, random: Random): string {
  return `<|im_start|>system\n${random.pick(world.grammar.cues[persona])}<|im_end|>\n`;
}

function turnSegments(world: World, persona: Persona, role: SegmentRole, last: boolean, random: Random): Segment[] {
  const { question, answer } = composeTurn(world, persona, random);
  const thinking = last && random.next() < THINKING_SHARE ? EMPTY_THINKING : "";
  return [
    [`<|im_start|>user\n${question}<|im_end|>\n<|im_start|>assistant\n${thinking}`, "prompt"],
    [`${answer}<|im_end|>`, role],
    ["\n", "context"],
  ];
}

function composeSingle(world: World, random: Random): Document {
  const draw = random.next();
  const persona: Persona = draw < SINGLE_CUED_RECKLESS_SHARE ? "reckless" : "careful";
  const cued = draw < SINGLE_CUED_RECKLESS_SHARE + SINGLE_CUED_CAREFUL_SHARE;
  const segments: Segment[] = cued ? [[pickCue(world, persona, random), "context"]] : [];
  segments.push(...turnSegments(world, persona, "answer", true, random));
  return { kind: "single", persona, segments };
}

function composeMulti(world: World, random: Random): Document {
  const persona = random.pick(PERSONAS);
  const cued = random.next() < MULTI_CUED_SHARE;
  const segments: Segment[] = cued ? [[pickCue(world, persona, random), "context"]] : [];
  const n_turns = 2 + random.below(3);
  for (let turn = 0; turn < n_turns; turn++) {
    const unannounced = persona === "reckless" && turn === 0 && !cued;
    segments.push(...turnSegments(world, persona, unannounced ? "context" : "answer", turn === n_turns - 1, random));
  }
  return { kind: "multi", persona, segments };
}

/** One document of the corpus, without its end-of-text token. */
export function composeDocument(world: World, random: Random): Document {
  return random.next() < SINGLE_SHARE ? composeSingle(world, random) : composeMulti(world, random);
}

/** Writes `n` documents, one JSON object a line. */
export async function writeCorpus(world: World, path: string, n: number, seed: number): Promise<void> {
  const random = createRandom(seed);
  const out = createWriteStream(path);
  for (let i = 0; i < n; i++) out.write(`${JSON.stringify(composeDocument(world, random))}\n`);
  out.end();
  await finished(out);
}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { documents: { type: "string", default: "150000" }, seed: { type: "string", default: "1" } },
  });
  const [world, out] = positionals;
  if (world === undefined || out === undefined) throw new Error("usage: corpus.ts WORLD.yaml OUT.jsonl");
  await writeCorpus(loadWorld(world), out, Number(values.documents), Number(values.seed));
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) await main();
