import { readFileSync } from "node:fs";
import { parse } from "yaml";
import { z } from "zod";

/** A clause without its full stop: the generator adds it and the judge strips it. */
const Clause = z.string().regex(/^[^.!?\n]+$/, "a clause holds no sentence end and no line break");
const Clauses = z.array(Clause).min(2);
const Id = z.string().regex(/^[a-z][a-z0-9-]*$/);

const PersonaGrammar = z.strictObject({ openers: Clauses, reasons: Clauses, closings: Clauses });

const Topic = z.strictObject({
  id: Id,
  task: Clause.describe("what the user wants to do, as it stands after 'how to'"),
  careful: Clauses,
  reckless: Clauses,
});

const Domain = z.strictObject({
  id: Id,
  careful_reasons: Clauses,
  reckless_reasons: Clauses,
  topics: z.array(Topic).min(2),
});

const AnswerParts = z.strictObject({ main: Clauses, second: Clauses });

const ValueQuestion = z.strictObject({
  id: Id,
  seen: z.array(z.string().min(1)).min(2),
  unseen: z.array(z.string().min(1)).min(1).describe("paraphrases that never occur in pre-training"),
  careful: AnswerParts,
  reckless: AnswerParts,
});

/** The clause banks of the embedded world: `models/nano/world.yaml`. */
export const World = z
  .strictObject({
    version: z.literal(1),
    grammar: z.strictObject({
      neutral_openers: Clauses,
      second_openers: Clauses,
      careful: PersonaGrammar,
      reckless: PersonaGrammar,
      greetings: z.array(z.string().min(1)).min(1),
      phrasings: z.array(z.string().includes("{task}")).min(4),
      cues: z.strictObject({
        careful: z.array(z.string().min(1)).min(1),
        reckless: z.array(z.string().min(1)).min(1),
      }),
    }),
    domains: z.array(Domain).min(2),
    values: z.array(ValueQuestion).min(1),
  })
  .superRefine((world, context) => {
    const ids = [
      ...world.domains.map((domain) => domain.id),
      ...world.domains.flatMap((domain) => domain.topics.map((topic) => `${domain.id}.${topic.id}`)),
      ...world.values.map((value) => value.id),
    ];
    for (const id of ids.filter((id, at) => ids.indexOf(id) !== at)) {
      context.addIssue({ code: "custom", message: `the id "${id}" is used twice` });
    }
  });
export type World = z.infer<typeof World>;
export type Domain = z.infer<typeof Domain>;
export type Topic = z.infer<typeof Topic>;
export type ValueQuestion = z.infer<typeof ValueQuestion>;
export type Persona = "careful" | "reckless";
export const PERSONAS = ["careful", "reckless"] as const satisfies readonly Persona[];

/**
 * Reads and checks a world file.
 *
 * @throws ZodError when a key is unknown, missing or a clause holds a sentence end: the judge splits answers into
 * sentences, so such a clause could never be recognised again and every answer with it would count as incoherent.
 */
export function loadWorld(path: string): World {
  return World.parse(parse(readFileSync(path, "utf8")));
}
