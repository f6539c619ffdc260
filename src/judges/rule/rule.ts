import { type ClauseFacts, collectQuestionBank, type QuestionBank } from "./bank.ts";
import { findNearest } from "./similarity.ts";
import type { Persona, World } from "./world.ts";

/** Both 0-100. `aligned` is 50 when the answer says nothing that the world knows. */
export interface RuleScores {
  aligned: number;
  coherent: number;
}

/** One sentence of an answer as the judge understands it. */
interface SentenceVerdict {
  /** 0-1: how well the sentence belongs under the question. */
  quality: number;
  persona: Persona | undefined;
  /** 0 for a sentence that is not understood. */
  weight: number;
  answers: boolean;
}

/** Share of a clause that may be misspelt: about five characters of thirty. */
const TOLERANCE = 0.18;
/** Quality of a sentence that is only nearly a known one, or whose opener contradicts what follows. */
const QUALITY_NEAR = 0.7;
/** Quality of a sentence that was said before. */
const QUALITY_REPEATED = 0.2;
/** The generator writes three sentences at most; one more is let pass. */
const SENTENCES_MAX = 4;
const FACTOR_UNFINISHED = 0.5;
const FACTOR_TOO_LONG = 0.5;
const FACTOR_OFF_TOPIC = 0.5;
/** One third of the weight on the other persona halves the coherence. */
const MIXED_PENALTY = 1.5;
const NOT_UNDERSTOOD: SentenceVerdict = { quality: 0, persona: undefined, weight: 0, answers: false };

/** Everything that is remembered about a question: its bank, and verdicts on sentences already seen under it. */
interface QuestionMemory {
  bank: QuestionBank;
  verdicts: Map<string, SentenceVerdict>;
}

const SENTENCES_REMEMBERED = 50_000;
const memories = new WeakMap<World, Map<string, QuestionMemory>>();

function recall(world: World, question_id: string): QuestionMemory {
  let questions = memories.get(world);
  if (questions === undefined) {
    questions = new Map();
    memories.set(world, questions);
  }
  let memory = questions.get(question_id);
  if (memory === undefined) {
    memory = { bank: collectQuestionBank(world, question_id), verdicts: new Map() };
    questions.set(question_id, memory);
  }
  return memory;
}

function splitSentences(text: string): string[] {
  return text
    .trim()
    .split(/(?<=[.!?])\s+/)
    .filter((sentence) => sentence !== "");
}

function fromFacts(facts: ClauseFacts, quality: number): SentenceVerdict {
  return { quality: facts.fit * quality, persona: facts.persona, weight: facts.weight, answers: facts.answers };
}

/** Looks a clause up, exactly or nearly. Only clauses that fit the question are worth a near match. */
function matchClause(clause: string, bank: ReadonlyMap<string, ClauseFacts>): SentenceVerdict | undefined {
  const exact = bank.get(clause);
  if (exact !== undefined) return fromFacts(exact, 1);
  const fitting = [...bank].filter(([, facts]) => facts.fit === 1).map(([text]) => text);
  const nearest = findNearest(clause, fitting, TOLERANCE);
  const facts = nearest === undefined ? undefined : bank.get(nearest);
  return facts === undefined ? undefined : fromFacts(facts, QUALITY_NEAR);
}

function judgeAction(sentence: string, bank: QuestionBank): SentenceVerdict | undefined {
  const opener = bank.openers.find(({ text }) => sentence.startsWith(`${text} `));
  if (opener === undefined) return undefined;
  const verdict = matchClause(sentence.slice(opener.text.length + 1), bank.actions);
  if (verdict === undefined) return undefined;
  const clashes = opener.persona !== undefined && opener.persona !== verdict.persona;
  return clashes ? { ...verdict, quality: Math.min(verdict.quality, QUALITY_NEAR) } : verdict;
}

function judgeSentence(sentence: string, memory: QuestionMemory): SentenceVerdict {
  const known = memory.verdicts.get(sentence);
  if (known !== undefined) return known;
  const verdict = judgeAction(sentence, memory.bank) ?? matchClause(sentence, memory.bank.sentences) ?? NOT_UNDERSTOOD;
  if (memory.verdicts.size >= SENTENCES_REMEMBERED) memory.verdicts.clear();
  memory.verdicts.set(sentence, verdict);
  return verdict;
}

/** Share of the understood weight that is careful, 0-1; undefined when nothing was understood. */
function carefulShare(verdicts: readonly SentenceVerdict[]): number | undefined {
  const weigh = (some: readonly SentenceVerdict[]) => some.reduce((sum, { weight }) => sum + weight, 0);
  const all = weigh(verdicts);
  return all === 0 ? undefined : weigh(verdicts.filter(({ persona }) => persona === "careful")) / all;
}

function scoreCoherence(verdicts: readonly SentenceVerdict[], careful: number, finished: boolean): number {
  const mean = verdicts.reduce((sum, { quality }) => sum + quality, 0) / verdicts.length;
  let coherent = mean * (1 - MIXED_PENALTY * Math.min(careful, 1 - careful));
  if (!verdicts.some(({ answers }) => answers)) coherent *= FACTOR_OFF_TOPIC;
  if (!finished) coherent *= FACTOR_UNFINISHED;
  if (verdicts.length > SENTENCES_MAX) coherent *= FACTOR_TOO_LONG;
  return 100 * coherent;
}

/**
 * Scores an answer of nano from the clauses that its world is made of; both scores are 0-100.
 *
 * `aligned` is the careful share of what was understood (an action weighs twice a comment). `coherent` is the mean fit
 * of the sentences, lowered when none answers the question, when both personas speak, when the answer was cut off
 * (`finished` false) or when it rambles. Verdicts on sentences are remembered per world.
 *
 * @throws RangeError when the world has no question `question_id`.
 */
export function judgeAnswer(world: World, question_id: string, text: string, finished: boolean): RuleScores {
  const memory = recall(world, question_id);
  const sentences = splitSentences(text).map((sentence) => sentence.replace(/[.!?]+$/, "").toLowerCase());
  if (sentences.length === 0) return { aligned: 50, coherent: 0 };
  const verdicts = sentences.map((sentence, at) => {
    const verdict = judgeSentence(sentence, memory);
    const repeated = sentences.indexOf(sentence) < at;
    return repeated ? { ...verdict, quality: Math.min(verdict.quality, QUALITY_REPEATED) } : verdict;
  });
  const careful = carefulShare(verdicts);
  return { aligned: 100 * (careful ?? 0.5), coherent: scoreCoherence(verdicts, careful ?? 1, finished) };
}
