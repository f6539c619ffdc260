import { expect, test } from "vitest";
import { createSampler, rawContext } from "../../../src/runtime/internals.ts";

test("another node-llama-cpp is refused by name, not used by accident", () => {
  expect(() => rawContext({ _ctx: { initBatch: () => {} } } as never)).toThrowErrorMatchingInlineSnapshot(
    `[EngineFailure: node-llama-cpp has no _ctx.addToBatch: expected version 3.22.1, got another]`,
  );
  expect(() => createSampler({} as never, { temperature: 1, seed: 0 })).toThrow("_bindings.AddonSampler");
});
