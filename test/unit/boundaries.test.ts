import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { expect, test } from "vitest";

const SRC = resolve(import.meta.dirname, "../../src");

/** Who may import whom: the folder on the left may import itself and what stands on the right. */
const MAY_IMPORT: Record<string, readonly string[]> = {
  errors: [],
  records: [],
  protocol: ["records"],
  stats: ["errors"],
  formats: ["errors", "records", "protocol"],
  artifacts: ["errors", "records", "protocol"],
  bridge: ["errors", "records", "protocol", "artifacts"],
  runtime: ["errors", "records", "protocol", "formats", "artifacts"],
  judges: ["errors", "records", "protocol", "formats", "artifacts"],
  phase: ["errors", "records", "protocol", "stats", "formats", "artifacts", "bridge", "runtime", "judges", "pipeline"],
  pipeline: ["errors", "records", "protocol", "formats", "artifacts", "judges", "phase"],
  index: ["errors", "records", "pipeline", "phase"],
  cli: ["errors", "records", "protocol", "formats", "artifacts", "bridge", "runtime", "pipeline", "phase", "judges"],
};

/** Modules of the pipeline that a phase may use: the interface of a unit and the handles that plans are made of. */
const PIPELINE_FOR_PHASES = ["unit.ts", "workspace.ts", "handles.ts", "served.ts", "rows.ts", "parity-record.ts"];

const files = readdirSync(SRC, { recursive: true, encoding: "utf8" }).filter((file) => file.endsWith(".ts"));

/** `phases/train/run.ts` is of folder `phase` and of unit `phases/train`. */
function place(file: string): { folder: string; unit: string } {
  const [first = "", second = ""] = file.split("/");
  if (first === "phases") return { folder: "phase", unit: `phases/${second}` };
  return { folder: first.replace(/\.ts$/, ""), unit: first };
}

const imports = (file: string): string[] =>
  [...readFileSync(join(SRC, file), "utf8").matchAll(/(?:from|import\()\s*"(\.[^"]+)"/g)].map((match) =>
    relative(SRC, resolve(dirname(join(SRC, file)), match[1] as string)),
  );

test("folders import only what the table allows", () => {
  const broken: string[] = [];
  for (const file of files) {
    const from = place(file);
    for (const target of imports(file)) {
      const to = place(target);
      const allowed = from.unit === to.unit || MAY_IMPORT[from.folder]?.includes(to.folder) === true;
      if (!allowed) broken.push(`${file} -> ${target}`);
      if (
        from.folder === "phase" &&
        to.folder === "pipeline" &&
        !PIPELINE_FOR_PHASES.some((name) => target.endsWith(`/${name}`))
      )
        broken.push(`${file} -> ${target}: a phase uses only the pipeline's interface`);
    }
  }
  expect(broken).toEqual([]);
});

test("only their owners import child processes and llama.cpp, and only the CLI reads the environment", () => {
  const broken: string[] = [];
  for (const file of files) {
    const text = readFileSync(join(SRC, file), "utf8");
    const { folder } = place(file);
    if (/"node:child_process"/.test(text) && folder !== "bridge") broken.push(`${file}: child_process`);
    if (/"node-llama-cpp"/.test(text) && folder !== "runtime") broken.push(`${file}: node-llama-cpp`);
    if (/process\.env\b/.test(text) && !["cli", "bridge", "runtime"].includes(folder))
      broken.push(`${file}: process.env`);
  }
  expect(broken).toEqual([]);
});
