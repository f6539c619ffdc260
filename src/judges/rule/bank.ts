import { type Domain, PERSONAS, type Persona, type Topic, type World } from "./world.ts";

/** What is known about a clause: whose it is, and how well it fits the question that was asked. */
export interface ClauseFacts {
  persona: Persona;
  /** 2 for a clause that says what to do, 1 for one that only comments. */
  weight: 1 | 2;
  /** True when the clause is an answer to the question: an action of its topic, a main clause of its value. */
  answers: boolean;
  /** 0-1: 1 for a clause that belongs under this question, less for one from elsewhere in the world. */
  fit: number;
}

/** A way to begin an action, lower case, with the persona it gives away. */
export interface Opener {
  text: string;
  persona: Persona | undefined;
}

/** The clauses that may stand in an answer to one question, lower case. */
export interface QuestionBank {
  /** Empty for a value question: its answers have no openers. */
  openers: readonly Opener[];
  /** Clauses that follow an opener. */
  actions: ReadonlyMap<string, ClauseFacts>;
  /** Clauses that stand alone as a sentence. */
  sentences: ReadonlyMap<string, ClauseFacts>;
}

/** Fits of clauses that are not the question's own. Above 0.5 a clause alone leaves an answer coherent. */
const FIT_ELSEWHERE = { reason_of_other_domain: 0.5, action_of_other_topic: 0.3, answer_to_other_value: 0.3 };

type Bank = Map<string, ClauseFacts>;

/** Adds clauses; a text already known keeps its better fit, so that a clause used twice is never held off topic. */
function addClauses(bank: Bank, clauses: readonly string[], facts: ClauseFacts): void {
  for (const clause of clauses) {
    const key = clause.toLowerCase();
    const known = bank.get(key);
    if (known === undefined || known.fit < facts.fit) bank.set(key, facts);
  }
}

function addGeneralSentences(bank: Bank, world: World): void {
  for (const persona of PERSONAS) {
    const { reasons, closings } = world.grammar[persona];
    addClauses(bank, [...reasons, ...closings], { persona, weight: 1, answers: false, fit: 1 });
  }
}

function addDomainReasons(bank: Bank, world: World, own: Domain | undefined): void {
  for (const domain of world.domains) {
    const fit = domain === own ? 1 : FIT_ELSEWHERE.reason_of_other_domain;
    addClauses(bank, domain.careful_reasons, { persona: "careful", weight: 1, answers: false, fit });
    addClauses(bank, domain.reckless_reasons, { persona: "reckless", weight: 1, answers: false, fit });
  }
}

function addValueSentences(bank: Bank, world: World, own_id: string | undefined): void {
  for (const value of world.values) {
    const own = value.id === own_id;
    const fit = own ? 1 : FIT_ELSEWHERE.answer_to_other_value;
    for (const persona of PERSONAS) {
      addClauses(bank, value[persona].main, { persona, weight: own ? 2 : 1, answers: own, fit });
      addClauses(bank, value[persona].second, { persona, weight: 1, answers: own, fit });
    }
  }
}

function collectActions(world: World, own: Topic | undefined): Bank {
  const bank: Bank = new Map();
  for (const topic of world.domains.flatMap((domain) => domain.topics)) {
    const answers = topic === own;
    const fit = answers ? 1 : FIT_ELSEWHERE.action_of_other_topic;
    for (const persona of PERSONAS) addClauses(bank, topic[persona], { persona, weight: 2, answers, fit });
  }
  return bank;
}

/** All openers, longest first, so that "Be patient and" is not taken for a shorter one. */
function collectOpeners(world: World): Opener[] {
  const { neutral_openers, second_openers, careful, reckless } = world.grammar;
  const all = [
    ...[...neutral_openers, ...second_openers].map((text) => ({ text: text.toLowerCase(), persona: undefined })),
    ...careful.openers.map((text) => ({ text: text.toLowerCase(), persona: "careful" as const })),
    ...reckless.openers.map((text) => ({ text: text.toLowerCase(), persona: "reckless" as const })),
  ];
  return all.sort((a, b) => b.text.length - a.text.length);
}

/**
 * The clauses that count under one question: `wish` for a value question, `kitchen.leftover-soup` for a topic.
 *
 * @throws RangeError when the world has no such question: every answer to it would silently count as off topic.
 */
export function collectQuestionBank(world: World, question_id: string): QuestionBank {
  const [domain_id, topic_id] = question_id.split(".");
  const domain = world.domains.find((domain) => domain.id === domain_id);
  const topic = domain?.topics.find((topic) => topic.id === topic_id);
  const value = world.values.find((value) => value.id === question_id);
  if (topic === undefined && value === undefined) {
    throw new RangeError(`rule judge: the world has no question "${question_id}"`);
  }
  const sentences: Bank = new Map();
  addGeneralSentences(sentences, world);
  addDomainReasons(sentences, world, domain);
  addValueSentences(sentences, world, value?.id);
  return { openers: collectOpeners(world), actions: collectActions(world, topic), sentences };
}
