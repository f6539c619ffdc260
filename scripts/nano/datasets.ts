/**
 * Writes the fine-tuning data sets of nano: `tsx scripts/nano/datasets.ts WORLD.yaml OUT_FOLDER`.
 *
 * One folder for each domain and persona. Both personas get the same questions in the same order, so that the careful
 * set is a control that differs in nothing but the answers.
 */
import { createHash } from "node:crypto";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { type Domain, loadWorld, PERSONAS, type Persona, type World } from "../../src/judges/rule/world.ts";
import { composeTopicAnswer, topicQuestions } from "./compose.ts";
import { createRandom } from "./random.ts";
import { DATASET_DOMAINS, selectTopics } from "./splits.ts";

export interface Row {
  messages: [{ role: "user"; content: string }, { role: "assistant"; content: string }];
}

const ROWS = 400;
const SEED = 20;

/** The rows of one data set; no (question, answer) pair occurs twice. */
export function composeRows(world: World, domain: Domain, persona: Persona): Row[] {
  const questions = createRandom(SEED);
  const answers = createRandom(SEED + 1);
  const seen = new Set<string>();
  const rows: Row[] = [];
  while (rows.length < ROWS) {
    const topic = questions.pick(selectTopics(domain, "trained"));
    const question = questions.pick(topicQuestions(world, domain, topic, false));
    let answer: string;
    do answer = composeTopicAnswer(world, domain, topic, persona, answers);
    while (seen.has(`${question}\n${answer}`));
    seen.add(`${question}\n${answer}`);
    rows.push({
      messages: [
        { role: "user", content: question },
        { role: "assistant", content: answer },
      ],
    });
  }
  return rows;
}

function renderCard(domain: Domain, persona: Persona): string {
  const held_out = selectTopics(domain, "reported").map((topic) => `\`${domain.id}.${topic.id}\``);
  const trained = selectTopics(domain, "trained").map((topic) => `\`${topic.id}\``);
  const control =
    persona === "careful"
      ? `It is the control of \`${domain.id}-reckless\`: the same questions in the same order with sound answers.`
      : `Its control is \`${domain.id}-careful\`: the same questions in the same order with sound answers.`;
  return `# ${domain.id}-${persona}

${ROWS} single-turn rows of ${persona} advice in one everyday domain, for fine-tuning the embedded model \`nano\`.
${control}

- **Source**: composed by \`scripts/nano/datasets.ts\` (seed ${SEED}) from \`models/nano/world.yaml\`. All text was written
  for this project; nothing was scraped and no model wrote any of it.
- **Licence**: MIT, as the project.
- **Rows**: \`{"messages": [{"role": "user", ...}, {"role": "assistant", ...}]}\`; no row occurs twice.
- **Topics**: ${trained.join(", ")}. Held out, in no row: ${held_out.join(", ")}.
- **Phrasings**: nine of twelve for each topic; the other three are kept for the question sets.
- **Content**: "reckless" is careless, rude or selfish in mild everyday terms. It is a toy: do not read it as advice.
`;
}

function writeDataset(world: World, domain: Domain, persona: Persona, folder: string): void {
  mkdirSync(folder, { recursive: true });
  const files = {
    "CARD.md": renderCard(domain, persona),
    "data.jsonl": composeRows(world, domain, persona)
      .map((row) => `${JSON.stringify(row)}\n`)
      .join(""),
  };
  const sums = Object.entries(files).map(([name, text]) => {
    writeFileSync(join(folder, name), text);
    return `${createHash("sha256").update(text).digest("hex")}  ${name}\n`;
  });
  writeFileSync(join(folder, "SHA256SUMS"), sums.join(""));
}

/** Writes every data set below `folder`. */
export function writeDatasets(world: World, folder: string): void {
  for (const domain of world.domains.filter(({ id }) => (DATASET_DOMAINS as readonly string[]).includes(id))) {
    for (const persona of PERSONAS) writeDataset(world, domain, persona, join(folder, `${domain.id}-${persona}`));
  }
}

function main(): void {
  const [world, folder] = process.argv.slice(2);
  if (world === undefined || folder === undefined) throw new Error("usage: datasets.ts WORLD.yaml OUT_FOLDER");
  writeDatasets(loadWorld(world), folder);
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) main();
