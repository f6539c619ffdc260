import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    testTimeout: 60_000,
    hookTimeout: 300_000,
    // Model tests train and sample on the CPU; more workers than this only make each other late.
    maxWorkers: 2,
    reporters: ["default", "./scripts/vitest-counts.mjs"],
  },
});
