import { join } from "node:path";
import { readManifest } from "../../artifacts/manifest.ts";
import { DriverError } from "../../errors.ts";
import { stageModel, stageUnit } from "../../phases/stage/stage.ts";
import { planRun } from "../../phases/train/plan.ts";
import { trainUnit } from "../../phases/train/run.ts";
import { Slug } from "../../records/experiment.ts";
import { chooseJobs, makeLibrary, makeWorkspace } from "../environment.ts";
import type { Io } from "../io.ts";
import { checkSaveAt, type RecipeFlags, recipeFromFlags } from "../recipe-flags.ts";
import { pasteable, runUnits, shortPath } from "../work.ts";

interface TrainFlags extends RecipeFlags {
  model: string;
  data: string;
  recipe?: string;
  name?: string;
  dir: string;
}

export async function run(_args: string[][], flags: TrainFlags, io: Io): Promise<unknown> {
  const own = recipeFromFlags(flags);
  const library = makeLibrary();
  const workspace = await makeWorkspace(flags.dir, io);
  const found = await library.model(flags.model);
  const recipe_name = flags.recipe ?? found.config?.recipe;
  const recipes = [...(recipe_name === undefined ? [] : [await library.recipe(recipe_name)]), own];
  const dataset = await library.dataset(flags.data);
  const staged = await stageModel(found.dir, workspace, found.id);
  const rank = recipes.findLast((recipe) => recipe.r !== undefined)?.r ?? "";
  const name = checkName(flags.name ?? `${safeName(dataset.id)}-r${rank}`);
  const planned = planRun({ label: name, name, recipes, staged, base_model: found.source, dataset }, workspace);
  checkSaveAt(own.save_at_steps ?? [], planned.config.steps);
  const jobs = chooseJobs(staged, workspace, io);
  await runUnits([stageUnit(staged, workspace), trainUnit(planned, staged, dataset, workspace)], jobs, io);
  const manifest = await readManifest(join(planned.dir, "manifest.json"));
  io.say(`Run: ${shortPath(planned.dir)}`);
  io.say(`Checkpoints: ${planned.config.checkpoints.join(", ")}`);
  io.say(`Next: vivarium eval ${pasteable(planned.dir, flags.dir)} --checkpoints all`);
  return { run: planned.dir, id: planned.id, config: planned.config, proofs: manifest?.facts.proofs };
}

function checkName(name: string): string {
  if (Slug.safeParse(name).success) return name;
  throw new DriverError("USAGE", `--name: expected letters, digits, '.', '_' and '-', got ${JSON.stringify(name)}`);
}

/** A data set's file name as a folder name: what no folder name may hold becomes a dash. */
function safeName(name: string): string {
  const plain = name.normalize("NFKD").replace(/[^A-Za-z0-9._-]+/g, "-");
  return plain.replace(/^[^A-Za-z0-9]+/, "").slice(0, 48) || "data";
}
