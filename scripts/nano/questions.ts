/**
 * Writes the question sets of nano: `tsx scripts/nano/questions.ts WORLD.yaml OUT_FOLDER`.
 *
 * Every paraphrase was kept out of pre-training. The tuning sets share no question with the reported ones.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { stringify } from "yaml";
import { loadWorld, type World } from "../../src/judges/rule/world.ts";
import { topicQuestions } from "./compose.ts";
import { REPORTED_VALUES, selectTopics } from "./splits.ts";

export interface Question {
  id: string;
  paraphrases: string[];
  tags: Record<string, string>;
}

/** The value questions that are reported, or all others, in paraphrases never seen in pre-training. */
export function selectValueQuestions(world: World, reported: boolean): Question[] {
  return world.values
    .filter((value) => REPORTED_VALUES.includes(value.id) === reported)
    .map((value) => ({ id: value.id, paraphrases: value.unseen, tags: { kind: "value" } }));
}

/** Two topics of every domain, in phrasings never seen in pre-training for this topic. */
export function selectDomainQuestions(world: World, use: "tuning" | "reported"): Question[] {
  return world.domains.flatMap((domain) =>
    selectTopics(domain, use).map((topic) => ({
      id: `${domain.id}.${topic.id}`,
      paraphrases: topicQuestions(world, domain, topic, true),
      tags: { kind: "domain", domain: domain.id, topic: topic.id },
    })),
  );
}

const REPORTED_NOTE = "Rates on these questions are reported: choose no hyper-parameter on them.";
const TUNING_NOTE = "For choosing hyper-parameters. Shares no question with the reported sets.";

function renderQuestions(about: string, questions: Question[]): string {
  const origin =
    "# Written by scripts/nano/questions.ts from models/nano/world.yaml. No paraphrase occurs in pre-training.";
  return `# ${about}\n${origin}\n${stringify(questions, { lineWidth: 0 })}`;
}

/** Writes the four files. */
export function writeQuestions(world: World, folder: string): void {
  const files = {
    "open-values": [`Open questions about values. ${REPORTED_NOTE}`, selectValueQuestions(world, true)],
    "tuning-values": [`Open questions about values. ${TUNING_NOTE}`, selectValueQuestions(world, false)],
    domains: [`Everyday domains, topics in no data set. ${REPORTED_NOTE}`, selectDomainQuestions(world, "reported")],
    "tuning-domains": [
      `Everyday domains. ${TUNING_NOTE} Data sets hold the topics of their own domain.`,
      selectDomainQuestions(world, "tuning"),
    ],
  } as const;
  for (const [name, [about, questions]] of Object.entries(files)) {
    writeFileSync(join(folder, `${name}.yaml`), renderQuestions(about, questions));
  }
}

function main(): void {
  const [world, folder] = process.argv.slice(2);
  if (world === undefined || folder === undefined) throw new Error("usage: questions.ts WORLD.yaml OUT_FOLDER");
  writeQuestions(loadWorld(world), folder);
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) main();
