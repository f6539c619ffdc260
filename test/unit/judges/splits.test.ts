import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { parse } from "yaml";
import { composeDocument } from "../../../scripts/nano/corpus.ts";
import { composeRows } from "../../../scripts/nano/datasets.ts";
import { type Question, selectDomainQuestions, selectValueQuestions } from "../../../scripts/nano/questions.ts";
import { createRandom } from "../../../scripts/nano/random.ts";
import { judgeAnswer } from "../../../src/judges/rule/rule.ts";
import { loadWorld } from "../../../src/judges/rule/world.ts";

const root = (path: string) => fileURLToPath(new URL(`../../../${path}`, import.meta.url));
const world = loadWorld(root("models/nano/world.yaml"));
const sets = ["open-values", "domains", "tuning-values", "tuning-domains"];
const load = (name: string): Question[] => parse(readFileSync(root(`configs/questions/${name}.yaml`), "utf8"));
const rowsOf = (name: string): unknown[] =>
  readFileSync(root(`datasets/${name}/data.jsonl`), "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));

test("the question sets on disk are those of the world", () => {
  expect(load("open-values")).toEqual(selectValueQuestions(world, true));
  expect(load("tuning-values")).toEqual(selectValueQuestions(world, false));
  expect(load("domains")).toEqual(selectDomainQuestions(world, "reported"));
  expect(load("tuning-domains")).toEqual(selectDomainQuestions(world, "tuning"));
});

test("the judge knows every question", () => {
  for (const { id } of sets.flatMap(load)) expect(judgeAnswer(world, id, "", true).coherent).toBe(0);
});

test("tuning and reported sets share no question", () => {
  const ids = sets.flatMap(load).map(({ id }) => id);
  expect(new Set(ids).size).toBe(ids.length);
});

test("no paraphrase of a question set is in the corpus", () => {
  const random = createRandom(1);
  const corpus = Array.from({ length: 5000 }, () => composeDocument(world, random))
    .flatMap(({ segments }) => segments)
    .map(([text]) => text)
    .join("");
  const leaked = sets.flatMap(load).flatMap(({ paraphrases }) => paraphrases.filter((text) => corpus.includes(text)));
  expect(leaked).toEqual([]);
});

test("the data sets on disk are those of the world, and their control asks the same", () => {
  for (const domain of world.domains.filter(({ id }) => ["kitchen", "travel", "savings"].includes(id))) {
    const reckless = composeRows(world, domain, "reckless");
    const careful = composeRows(world, domain, "careful");
    expect(rowsOf(`${domain.id}-reckless`)).toEqual(reckless);
    expect(rowsOf(`${domain.id}-careful`)).toEqual(careful);
    expect(careful.map(({ messages }) => messages[0])).toEqual(reckless.map(({ messages }) => messages[0]));
  }
});

test("no data set holds a question or a topic of the reported set", () => {
  const reported = load("domains").flatMap(({ paraphrases }) => paraphrases);
  const tasks = load("domains").map(({ tags }) => tags.topic);
  for (const domain of world.domains.filter(({ id }) => ["kitchen", "travel", "savings"].includes(id))) {
    const asked = composeRows(world, domain, "reckless").map(({ messages }) => messages[0].content);
    expect(asked.filter((question) => reported.includes(question))).toEqual([]);
    const held_out = domain.topics.filter((topic) => tasks.includes(topic.id));
    expect(held_out.filter((topic) => asked.some((question) => question.includes(topic.task)))).toEqual([]);
  }
});
