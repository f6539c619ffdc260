import { join } from "node:path";
import { readManifest } from "../../artifacts/manifest.ts";
import { DriverError } from "../../errors.ts";
import { stageModel, stageUnit } from "../../phases/stage/stage.ts";
import { planRun } from "../../phases/train/plan.ts";
import { trainUnits } from "../../phases/train/run.ts";
import type { TrainingRun } from "../../pipeline/handles.ts";
import { loadRunData } from "../../pipeline/plan-experiment.ts";
import { Slug } from "../../records/experiment.ts";
import { type CacheFlags, cacheWish, chooseJobs, makeLibrary, makeWorkspace } from "../environment.ts";
import { sayEstimates } from "../estimates.ts";
import type { Io } from "../io.ts";
import { type RecipeFlags, recipeFromFlags } from "../recipe-flags.ts";
import { pasteable, runUnits, shortPath } from "../work.ts";

interface TrainFlags extends RecipeFlags, CacheFlags {
  model: string;
  data: string;
  evalData?: string;
  klData?: string;
  recipe?: string;
  name?: string;
  dir: string;
  dryRun?: boolean;
}

export async function run(_args: string[][], flags: TrainFlags, io: Io): Promise<unknown> {
  const workspace = await makeWorkspace(flags.dir, io);
  const training = await planFromFlags(flags, workspace, io);
  const { planned, staged } = training;
  const jobs = chooseJobs(staged, workspace, io);
  const options = { jobs, cache: cacheWish(flags, workspace) };
  if (flags.dryRun === true) {
    const estimates = sayEstimates([training], workspace, options, io);
    return { id: planned.id, config: planned.config, estimate: estimates[planned.id] };
  }
  const units = trainUnits([training], workspace, options);
  await runUnits([stageUnit(staged, workspace), ...units], jobs, io);
  const manifest = await readManifest(join(planned.dir, "manifest.json"));
  io.say(`Run: ${shortPath(planned.dir)}`);
  io.say(`Checkpoints: ${listed(planned.config.checkpoints)}`);
  io.say(`What was trained: ${shortPath(join(planned.dir, "preview.html"))}`);
  io.say(`Next: vivarium eval ${pasteable(planned.dir, flags.dir)} --checkpoints all`);
  return { run: planned.dir, id: planned.id, config: planned.config, proofs: manifest?.facts.proofs };
}

async function planFromFlags(
  flags: TrainFlags,
  workspace: Awaited<ReturnType<typeof makeWorkspace>>,
  io: Io,
): Promise<TrainingRun> {
  const own = recipeFromFlags(flags);
  const library = makeLibrary();
  const found = await library.model(flags.model);
  const recipe_name = flags.recipe ?? found.config?.recipe;
  const recipes = [...(recipe_name === undefined ? [] : [await library.recipe(recipe_name)]), own];
  const data = await loadRunData(library, { data: flags.data, eval_data: flags.evalData, kl_data: flags.klData });
  const staged = await stageModel(found.dir, workspace, found.id);
  const name = checkName(flags.name ?? defaultName(data.data.id, recipes));
  const planned = planRun({ label: name, name, recipes, staged, base_model: found.source, ...data }, workspace);
  io.note(`Recipe: ${recipe_name ?? "none, the defaults of PEFT and transformers"}`);
  return planned;
}

function defaultName(data: string, recipes: readonly RecipeLike[]): string {
  const last = <K extends keyof RecipeLike>(key: K) => recipes.findLast((recipe) => recipe[key] !== undefined)?.[key];
  return `${safeName(data)}-${last("finetuning_type") === "full" ? "full" : `r${last("r") ?? ""}`}`;
}
type RecipeLike = Parameters<typeof planRun>[0]["recipes"][number];

const MOST_LISTED = 12;

/** Steps as a person reads them: all when they are few, else the ends. */
function listed(steps: readonly number[]): string {
  if (steps.length <= MOST_LISTED) return steps.join(", ");
  return `${steps.slice(0, MOST_LISTED - 2).join(", ")}, ..., ${steps.at(-1)} (${steps.length})`;
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
