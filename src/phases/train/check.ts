import { DriverError } from "../../errors.ts";
import { LoraShape } from "../../records/lora.ts";
import { type Recipe, type ResolvedRecipe, trainRows } from "../../records/recipe.ts";

/** Oldest NVIDIA GPUs that compute in bfloat16. Source: CUDA programming guide, compute capability 8.0 (Ampere). */
const BF16_COMPUTE_CAPABILITY = 8.0;

/** What a run is checked against beside its own values. */
export interface TrainingContext {
  /** Of the run, the weaker first: only the last ones are taken as said on purpose. */
  recipes: readonly Recipe[];
  /** Whether training will run on a CUDA device. */
  cuda: boolean;
  /** Of that device, e.g. 7.5; null or absent: not known, and then not checked. */
  compute_capability?: number | null;
  /** Default: of this process. */
  platform?: NodeJS.Platform;
  /** Of the data file. */
  rows: number;
  has_eval_data: boolean;
  has_kl_data: boolean;
}

/** One thing that is wrong, and what to do about it. `machine`: another machine could do it. */
interface Problem {
  message: string;
  hint: string;
  machine?: boolean;
}

/**
 * Refuses a run that would fail late or silently do something else than it says.
 *
 * @throws {DriverError} `CONFIG_INVALID`, or `MACHINE_LACKS` where only this machine is in the way, naming all problems.
 */
export function checkTraining(resolved: ResolvedRecipe, context: TrainingContext): void {
  const problems = [
    ...stepProblems(resolved, context),
    ...dataProblems(resolved, context),
    ...fullProblems(resolved, context),
    ...machineProblems(resolved, context),
  ];
  if (problems.length === 0) return;
  const [first] = problems;
  const message =
    problems.length === 1 && first !== undefined
      ? first.message
      : `${problems.length} things are wrong with this run:\n${problems.map((problem) => `- ${problem.message}`).join("\n")}`;
  throw new DriverError(problems.every(({ machine }) => machine) ? "MACHINE_LACKS" : "CONFIG_INVALID", message, {
    hint: [...new Set(problems.map(({ hint }) => hint))].join(" "),
    facts: { problems: problems.map((problem) => problem.message) },
  });
}

function stepProblems({ steps, training }: ResolvedRecipe, { recipes, rows }: TrainingContext): Problem[] {
  if (trainRows(training.test_size, rows) === 0)
    return [
      {
        message: `test_size ${training.test_size} leaves no row to train on`,
        hint: "Give more rows, or --set test_size=0.",
      },
    ];
  const beyond = (recipes.at(-1)?.save_at_steps ?? []).filter((wish) => firstStep(wish, steps) > steps);
  if (beyond.length === 0) return [];
  return [
    {
      message: `save_at_steps: expected steps of at most ${steps}, the last one, got ${beyond.join(", ")}`,
      hint: "Train longer with --steps or --epochs, or leave them out.",
    },
  ];
}

/** The first step that an entry of `save_at_steps` asks for. */
function firstStep(wish: number | string, steps: number): number {
  if (typeof wish === "number") return wish;
  const first = Number.parseFloat(wish);
  return wish.endsWith("%") ? Math.ceil((first / 100) * steps) : first;
}

function dataProblems({ training }: ResolvedRecipe, { has_eval_data, has_kl_data }: TrainingContext): Problem[] {
  const { eval_steps, test_size, kl_weight } = training;
  const found: Problem[] = [];
  if (eval_steps > 0 && test_size === 0 && !has_eval_data)
    found.push({
      message: `eval_steps ${eval_steps} needs held-out rows: expected test_size above 0 or eval data, got neither`,
      hint: "Give --eval-data, --set test_size=0.1 or --set eval_steps=0.",
    });
  if (has_eval_data && test_size > 0)
    found.push({
      message: `eval data and test_size ${test_size}: expected one source of held-out rows, got two`,
      hint: "Use --set test_size=0 to train on all rows, or leave the eval data out.",
    });
  if (kl_weight > 0 && !has_kl_data)
    found.push({
      message: `kl_weight ${kl_weight} needs KL data, got none`,
      hint: "Give --kl-data, or --set kl_weight=0.",
    });
  if (has_kl_data && kl_weight === 0)
    found.push({
      message: "KL data without kl_weight would not be looked at: expected kl_weight above 0, got 0",
      hint: "Give --set kl_weight=1e6, as arXiv 2602.07852 does, or leave the KL data out.",
    });
  return found;
}

function fullProblems({ lora, training }: ResolvedRecipe, { recipes }: TrainingContext): Problem[] {
  if (lora !== null) return [];
  const found: Problem[] = [];
  const what = "finetuning_type full";
  if (training.kl_weight > 0)
    found.push({
      message: `${what} with kl_weight ${training.kl_weight}: the base would have to be held a second time`,
      hint: "Train an adapter, or --set kl_weight=0.",
    });
  if (training.load_in_4bit)
    found.push({
      message: `${what} with load_in_4bit: 4-bit weights cannot be trained`,
      hint: "Train an adapter, or --set load_in_4bit=false.",
    });
  const named = ignoredNames(recipes);
  if (named.length > 0)
    found.push({
      message: `${what} has no adapter: expected no LoRA names, got ${named.join(", ")}`,
      hint: "Leave them out, or --set finetuning_type=lora.",
    });
  return found;
}

/** LoRA names that stand where `full` is said, or that are said after it; those of a weaker recipe are overridden. */
function ignoredNames(recipes: readonly Recipe[]): string[] {
  const deciding = recipes.findLastIndex(({ finetuning_type }) => finetuning_type === "full");
  const names = Object.keys(LoraShape.shape) as (keyof LoraShape)[];
  return names.filter((name) => recipes.slice(deciding).some((recipe) => recipe[name] !== undefined));
}

function machineProblems({ training }: ResolvedRecipe, context: TrainingContext): Problem[] {
  const { optim, load_in_4bit, dtype } = training;
  const { cuda, compute_capability, platform = process.platform } = context;
  const found: Problem[] = [];
  const needs_bitsandbytes = "needs bitsandbytes, which is made for Linux only";
  if (optim === "adamw_8bit" && platform !== "linux")
    found.push({
      message: `optim adamw_8bit ${needs_bitsandbytes}, got ${platform}`,
      hint: "Use --set optim=adamw_torch: the same update with full-precision moments.",
      machine: true,
    });
  if (load_in_4bit && platform !== "linux")
    found.push({
      message: `load_in_4bit ${needs_bitsandbytes}, got ${platform}`,
      hint: "Use --set load_in_4bit=false.",
      machine: true,
    });
  if (
    cuda &&
    dtype === "bfloat16" &&
    typeof compute_capability === "number" &&
    compute_capability < BF16_COMPUTE_CAPABILITY
  )
    found.push({
      message: `dtype bfloat16 needs a GPU of compute capability ${BF16_COMPUTE_CAPABILITY.toFixed(1)}, got ${compute_capability.toFixed(1)}`,
      hint: "Use --set dtype=float32.",
      machine: true,
    });
  return found;
}
