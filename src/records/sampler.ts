import { z } from "zod";

/** How responses are drawn. Every setting is explicit: an engine's defaults differ from release to release. */
export const Sampler = z
  .strictObject({
    temperature: z.number().nonnegative(),
    top_p: z.number().gt(0).max(1),
    top_k: z.int().nonnegative().describe("0 means the whole vocabulary"),
    min_p: z.number().min(0).lt(1),
    max_new_tokens: z.int().positive(),
  })
  .meta({ id: "Sampler" });
export type Sampler = z.output<typeof Sampler>;
