import { z } from "zod";

export const PARITY_VERDICTS = ["pass", "refuse", "undecidable"] as const;

/** One layer of the gate: what was compared, the numbers, and what they mean. */
export const ParityCheck = z.strictObject({
  check: z.enum(["tokens", "scales", "strict", "as_served"]),
  verdict: z.enum(PARITY_VERDICTS),
  reasons: z.array(z.string()),
  explanation: z.string().optional().describe("the nearest mistake that would look like this"),
  metrics: z.record(z.string(), z.number()),
});
export type ParityCheck = z.output<typeof ParityCheck>;

/**
 * `parity.json`: whether llama.cpp applies the adapter that PEFT trained. `key` names the bytes on both sides, so a
 * verdict never outlives the files that it is about.
 */
export const ParityRecord = z.strictObject({
  schema_version: z.literal(1),
  key: z.string().length(64),
  model: z.string(),
  verdict: z.enum(PARITY_VERDICTS),
  checks: z.array(ParityCheck),
  inputs: z.record(z.string(), z.string()).describe("sha256 by role"),
  packages: z.record(z.string(), z.string()),
});
export type ParityRecord = z.output<typeof ParityRecord>;
