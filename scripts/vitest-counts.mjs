// vitest reporter: writes counts and skips to the file named by VIVARIUM_COUNTS, for scripts/check.mjs.
import { writeFileSync } from "node:fs";

export default class Counts {
  onTestRunEnd(modules, unhandledErrors) {
    const file = process.env.VIVARIUM_COUNTS;
    if (!file) return;
    const counts = { passed: 0, failed: unhandledErrors.length, skipped: [] };
    for (const module of modules) {
      counts.failed += module.errors().length;
      for (const test of module.children.allTests()) {
        const { state, note } = { note: undefined, ...test.result() };
        if (state === "passed") counts.passed += 1;
        else if (state === "failed") counts.failed += 1;
        else counts.skipped.push({ name: test.fullName, reason: note ?? "no reason given" });
      }
    }
    writeFileSync(file, JSON.stringify(counts));
  }
}
