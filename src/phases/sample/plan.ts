import { createHash } from "node:crypto";
import type { ChatFormat } from "../../formats/chat.ts";
import type { EvalModel, PlannedEval, QuestionSet } from "../../pipeline/handles.ts";
import type { Question } from "../../records/question.ts";

/**
 * Responses that are decoded together. A block is one prompt under this many seeds; it is always decoded whole and alone,
 * so the arithmetic behind a sample is the same in a first run, after a crash, and when more samples are asked for.
 * Ten divides the field's usual 50 and 100 samples a question (Betley et al. 2025; Turner et al. 2025).
 */
export const BLOCK_SIZE = 10;

export interface SampleBlock {
  key: string;
  question_set: string;
  question_id: string;
  paraphrase: number;
  first_sample: number;
  prompt_ids: number[];
  prompt_sha256: string;
  seeds: number[];
}

/** llama.cpp reads 0xffffffff as "any seed". Source: llama.cpp `include/llama.h` `LLAMA_DEFAULT_SEED`. */
const SEEDS = 0xffff_ffff;

/** Seed of one response, from the first 32 bits of a sha256. The model is no part of it. */
export function responseSeed(seed: number, question_id: string, paraphrase: number, sample: number): number {
  return (
    createHash("sha256").update(`${seed}\n${question_id}\n${paraphrase}\n${sample}`).digest().readUInt32LE(0) % SEEDS
  );
}

/** sha256 of token ids in decimal, joined by one space. */
export function tokenIdsSha256(ids: readonly number[]): string {
  return createHash("sha256").update(ids.join(" ")).digest("hex");
}

/** Key of a response within its model's journal. */
export const responseKey = (question_set: string, question_id: string, sample: number): string =>
  `${question_set}/${question_id}/${sample}`;

/** All blocks of a model's responses, in a fixed order. Block b of a question uses paraphrase b mod (number of paraphrases). */
export function planBlocks(planned: PlannedEval, model: EvalModel): SampleBlock[] {
  return planned.question_sets
    .filter((set) => model.question_sets.includes(set.id))
    .flatMap((set) => set.questions.flatMap((question) => questionBlocks(planned, model, set, question)));
}

function questionBlocks(planned: PlannedEval, model: EvalModel, set: QuestionSet, question: Question): SampleBlock[] {
  const prompts = question.paraphrases.map((_, index) => questionPrompt(planned.staged.chat, planned, question, index));
  return Array.from({ length: Math.ceil(model.samples / BLOCK_SIZE) }, (_, block) => {
    const paraphrase = block % question.paraphrases.length;
    const prompt_ids = prompts[paraphrase] as number[];
    const first_sample = block * BLOCK_SIZE;
    return {
      key: `${set.id}/${question.id}/${block}`,
      question_set: set.id,
      question_id: question.id,
      paraphrase,
      first_sample,
      prompt_ids,
      prompt_sha256: tokenIdsSha256(prompt_ids),
      seeds: Array.from({ length: BLOCK_SIZE }, (_, i) =>
        responseSeed(planned.seed, question.id, paraphrase, first_sample + i),
      ),
    };
  });
}

function questionPrompt(chat: ChatFormat, planned: PlannedEval, question: Question, paraphrase: number): number[] {
  const system = question.system === undefined ? [] : [{ role: "system" as const, content: question.system }];
  const messages = [...system, { role: "user" as const, content: question.paraphrases[paraphrase] as string }];
  return chat.promptIds(messages, planned.chat_template_kwargs);
}
