import type { ReportInput } from "./input.ts";

/** Files that hold each model's rows, by model id, relative to the folder of the report. */
export function rowFiles({ models, judge }: ReportInput): Map<string, string[]> {
  return new Map(
    models.map(({ id, row_files }) => {
      const below = row_files ?? [
        `${id}/responses.jsonl`,
        `${id}/judgements/${judge.id}-${judge.sha256.slice(0, 8)}.jsonl`,
      ];
      return [id, below.map((path) => `../${path}`)];
    }),
  );
}
