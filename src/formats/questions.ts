import { z } from "zod";
import { Question } from "../records/question.ts";
import { parseYaml } from "./yaml.ts";

const Questions = z
  .array(Question)
  .min(1)
  .superRefine((questions, context) => {
    const seen = new Set<string>();
    for (const [index, { id }] of questions.entries()) {
      if (seen.has(id))
        context.addIssue({ code: "custom", path: [index, "id"], message: "an id that no other question has" });
      seen.add(id);
    }
  });

/**
 * Reads a question file: a YAML list of questions, in the project's own or in the published format.
 *
 * @throws DriverError CONFIG_INVALID with every fault of the file, placed by line and column.
 */
export function parseQuestions(text: string, file: string): Question[] {
  return parseYaml(text, file, Questions);
}
