import { readFileSync } from "node:fs";
import { z } from "zod";
import { EngineFailure } from "./failure.ts";

const TokenIds = z.array(z.int().nonnegative()).min(1);

/** `blocks_file` of a sample job. */
export const BlocksFile = z.strictObject({
  blocks: z.array(
    z.strictObject({ key: z.string().min(1), prompt_ids: TokenIds, seeds: z.array(z.int().nonnegative()).min(1) }),
  ),
});
export type SampleBlock = z.output<typeof BlocksFile>["blocks"][number];

/** `prompts_file` of a logprobs job. */
export const PromptsFile = z.strictObject({ prompts: z.array(TokenIds).min(1) });

/**
 * Reads one of the job's JSON files.
 *
 * @throws {EngineFailure} `BAD_DATA` when the file is missing, no JSON or of another shape.
 */
export function loadInput<T>(path: string, schema: z.ZodType<T>): T {
  let value: unknown;
  try {
    value = JSON.parse(readFileSync(path, "utf8"));
  } catch (cause) {
    throw new EngineFailure("BAD_DATA", `Cannot read ${path}: ${(cause as Error).message}`, { cause });
  }
  const parsed = schema.safeParse(value);
  if (!parsed.success) throw new EngineFailure("BAD_DATA", `${path} is malformed:\n${z.prettifyError(parsed.error)}`);
  return parsed.data;
}

/**
 * @throws {EngineFailure} `BAD_DATA` when an id is outside the model's vocabulary: the prompt was made with another
 *   tokenizer, or for another base.
 */
export function validateTokenIds(what: string, ids: readonly number[], vocabSize: number): void {
  const bad = ids.find((id) => id >= vocabSize);
  if (bad !== undefined)
    throw new EngineFailure("BAD_DATA", `${what}: token id ${bad} is outside the vocabulary of ${vocabSize}`);
}
