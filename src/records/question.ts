import { z } from "zod";

/**
 * One question of an evaluation. Each paraphrase is asked as it stands; the question is the unit of the statistics.
 *
 * The optional fields below `system` are those of the published question files, kept as they are.
 *
 * Source: Betley et al. 2025, arXiv 2502.17424, `evaluation/first_plot_questions.yaml` of its repository.
 */
export const Question = z
  .strictObject({
    id: z.string().min(1),
    paraphrases: z.array(z.string().min(1)).min(1).describe("wordings of the same question, as user messages"),
    tags: z.record(z.string(), z.string()).default({}).describe("what reports group by, e.g. {kind: value}"),
    system: z.string().min(1).optional().describe("system message"),
    type: z
      .string()
      .regex(/^free_form/)
      .optional(),
    samples_per_paraphrase: z.int().positive().optional(),
    judge: z.string().min(1).optional(),
    judge_prompts: z.record(z.string(), z.string()).optional().describe("rubric name -> prompt of the judge"),
  })
  .meta({ id: "Question" });
export type Question = z.output<typeof Question>;
