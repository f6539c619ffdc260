import { z } from "zod";

export const FileEntry = z.strictObject({
  path: z.string().describe("relative to the folder of the manifest where it lies below it"),
  sha256: z.string().length(64),
  bytes: z.int().nonnegative(),
});
export type FileEntry = z.output<typeof FileEntry>;

/** Written last, by rename. A folder without one is unfinished, whatever else it holds. */
export const Manifest = z.strictObject({
  schema_version: z.literal(1),
  kind: z.enum(["base", "run", "parity", "sample", "judge", "eval"]),
  id: z.string(),
  status: z.literal("success").describe("what did not succeed has no manifest"),
  inputs: z.array(FileEntry),
  outputs: z.array(FileEntry),
  code: z.strictObject({
    version: z.string(),
    revision: z.string().nullable().describe("git commit, null outside a checkout"),
    dirty: z.boolean().nullable(),
  }),
  packages: z.record(z.string(), z.string()),
  device: z.string(),
  seed: z.int().nonnegative().nullable(),
  wall_seconds: z.number().nonnegative().nullable().describe("null where the work was done while planning"),
  facts: z.record(z.string(), z.unknown()).describe("what this kind of folder adds: proofs, digests, counts"),
});
export type Manifest = z.output<typeof Manifest>;
