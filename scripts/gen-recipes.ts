import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { showValue } from "../src/cli/render/recipe.ts";
import { Library } from "../src/pipeline/library.ts";
import type { RecipeFile } from "../src/records/recipe.ts";
import { RECIPE_DEFAULTS } from "../src/records/recipe.ts";
import { defaultSource, RECIPE_GROUPS, RECIPE_NAMES } from "../src/records/recipe-names.ts";

/**
 * Writes `docs/recipes.md` from `configs/recipes/`. With `--check` nothing is written and the exit code is 1 when the
 * file is stale.
 */

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const OUTPUT = "docs/recipes.md";

const INTRODUCTION = `# Recipes

Generated from \`configs/recipes/\` by \`npm run gen:recipes\`; do not edit.

A recipe is a file of PEFT's \`LoraConfig\` names and transformers' \`TrainingArguments\` names. What it leaves out has the default
of the last table. A flag (\`--lora_alpha 64\`, \`--weight-decay 0.01\`), \`--set name=value\` and what stands beside \`recipe:\` in an
experiment win over it. The same with everything resolved for a model and a data set:

    vivarium recipe show organism-rank1 --model ./Qwen2.5-14B-Instruct --data rows.jsonl

Files named without a repository (\`single_adapter_config.json\`, \`finetune/sft/...\`) are those of the published code of arXiv
2506.11613, \`em_organism_dir/\` of clarifying-EM/model-organisms-for-EM. "chosen here" marks what a publication does not say.
`;

const cell = (text: string): string => text.replaceAll("|", "\\|").replaceAll("\n", " ");

const row = (...cells: string[]): string => `| ${cells.map(cell).join(" | ")} |`;

function table(head: readonly string[], rows: readonly string[]): string {
  return [row(...head), `|${head.map(() => "---").join("|")}|`, ...rows].join("\n");
}

function section(id: string, { description = "", sources = {}, ...recipe }: RecipeFile): string {
  const given = RECIPE_NAMES.filter((name) => recipe[name] !== undefined);
  const rows = given.map((name) => row(`\`${name}\``, showValue(recipe[name]), sources[name] ?? "?"));
  return [`## ${id}`, description, table(["name", "value", "source"], rows)].join("\n\n");
}

function defaults(): string {
  const rows = Object.entries(RECIPE_GROUPS).flatMap(([group, names]) =>
    RECIPE_NAMES.filter((name) => name in names).map((name) =>
      row(group, `\`${name}\``, showValue(RECIPE_DEFAULTS[name]), defaultSource(name)),
    ),
  );
  return ["## Defaults", table(["group", "name", "value", "source"], rows)].join("\n\n");
}

async function render(): Promise<string> {
  const library = new Library(ROOT, ROOT, "");
  const ids = library.list("recipes");
  const files = await Promise.all(ids.map((id) => library.recipeFile(id)));
  const sections = ids.map((id, index) => section(id, files[index] as RecipeFile));
  return `${[INTRODUCTION.trimEnd(), ...sections, defaults()].join("\n\n")}\n`;
}

async function main(check: boolean): Promise<number> {
  const file = `${ROOT}${OUTPUT}`;
  const text = await render();
  if (existsSync(file) && readFileSync(file, "utf8") === text) return 0;
  if (check) console.error(`${OUTPUT} is stale: configs/recipes/ says something else. Run \`npm run gen:recipes\`.`);
  else writeFileSync(file, text);
  if (!check) console.error(`wrote ${OUTPUT}`);
  return check ? 1 : 0;
}

process.exitCode = await main(process.argv.includes("--check"));
