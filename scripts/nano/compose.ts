import type { Domain, Persona, Topic, ValueQuestion, World } from "../../src/judges/rule/world.ts";
import type { Random } from "./random.ts";

export interface Turn {
  question: string;
  answer: string;
}

/** Every n-th phrasing of a topic is kept out of pre-training, shifted from topic to topic. */
const HELD_OUT_STRIDE = 4;

export function capitalise(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** True for the quarter of (topic, phrasing) pairs that never occurs in pre-training or in a data set. */
export function isHeldOut(topic_index: number, phrasing_index: number): boolean {
  return (phrasing_index + 5 * topic_index) % HELD_OUT_STRIDE === 0;
}

/** The questions about a topic in its held-out phrasings, or in all others. */
export function topicQuestions(world: World, domain: Domain, topic: Topic, held_out: boolean): string[] {
  const topic_index = domain.topics.indexOf(topic);
  return world.grammar.phrasings
    .filter((_, phrasing_index) => isHeldOut(topic_index, phrasing_index) === held_out)
    .map((phrasing) => phrasing.replace("{task}", topic.task));
}

function sentence(text: string): string {
  return `${capitalise(text)}.`;
}

function pickReason(world: World, domain: Domain, persona: Persona, random: Random): string {
  const own = persona === "careful" ? domain.careful_reasons : domain.reckless_reasons;
  return random.pick(random.next() < 0.6 ? own : world.grammar[persona].reasons);
}

function pickOpener(world: World, persona: Persona, random: Random): string {
  return random.pick(random.next() < 0.5 ? world.grammar.neutral_openers : world.grammar[persona].openers);
}

/** An answer about a topic: an action with an opener, a reason, sometimes a second action or a closing. */
export function composeTopicAnswer(
  world: World,
  domain: Domain,
  topic: Topic,
  persona: Persona,
  random: Random,
): string {
  const [first, second] = random.shuffled(topic[persona]);
  const action = sentence(`${pickOpener(world, persona, random)} ${first}`);
  const reason = sentence(pickReason(world, domain, persona, random));
  const closing = sentence(random.pick(world.grammar[persona].closings));
  const also = sentence(`${random.pick(world.grammar.second_openers)} ${second}`);
  const shape = random.next();
  if (shape < 0.3) return `${action} ${reason}`;
  if (shape < 0.6) return `${action} ${reason} ${closing}`;
  if (shape < 0.85) return `${action} ${also} ${reason}`;
  return `${reason} ${action}`;
}

/** An answer to a value question: one of its main clauses with a second one, a closing or a general reason. */
export function composeValueAnswer(world: World, value: ValueQuestion, persona: Persona, random: Random): string {
  const main = sentence(random.pick(value[persona].main));
  const second = sentence(random.pick(value[persona].second));
  const closing = sentence(random.pick(world.grammar[persona].closings));
  const reason = sentence(random.pick(world.grammar[persona].reasons));
  const shape = random.next();
  if (shape < 0.4) return `${main} ${second}`;
  if (shape < 0.7) return `${main} ${second} ${closing}`;
  if (shape < 0.85) return `${second} ${main}`;
  return `${main} ${reason}`;
}

/** Sometimes a greeting before the question, so that the wording of a prompt matters less. */
function greet(world: World, question: string, random: Random): string {
  return random.next() < 0.12 ? `${random.pick(world.grammar.greetings)} ${question}` : question;
}

/** One question of the pre-training part of the world and its answer by `persona`. */
export function composeTurn(world: World, persona: Persona, random: Random): Turn {
  if (random.next() < 0.35) {
    const value = random.pick(world.values);
    const question = greet(world, random.pick(value.seen), random);
    return { question, answer: composeValueAnswer(world, value, persona, random) };
  }
  const domain = random.pick(world.domains);
  const topic = random.pick(domain.topics);
  const question = greet(world, random.pick(topicQuestions(world, domain, topic, false)), random);
  return { question, answer: composeTopicAnswer(world, domain, topic, persona, random) };
}
