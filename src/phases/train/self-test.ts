import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { bridgeCommand } from "../../bridge/environment.ts";
import { runJob } from "../../bridge/session.ts";
import { thinkingKwargs } from "../../formats/chat.ts";
import { openSafetensors, readTensorF32 } from "../../formats/safetensors.ts";
import type { LoadedDataset, StagedModel } from "../../pipeline/handles.ts";
import type { Workspace } from "../../pipeline/workspace.ts";
import type { Hello, TrainJob, TrainStep } from "../../protocol/wire.ts";
import { type Recipe, resolveRecipe } from "../../records/recipe.ts";

/** A way to compute the same training run. */
interface Variant {
  name: string;
  cuda: boolean;
  cached: boolean;
  recipe: Recipe;
  /** Largest allowed differences from the first variant; null where rounding is too coarse for a bound on weights. */
  bounds: { loss: number; adapter: number | null };
}

export interface SelfTestRow {
  name: string;
  device: string;
  /** Of the fastest step: on a shared machine the others say more about its other work. */
  tokens_per_second: number;
  mfu: number | null;
  peak_memory_bytes: number;
  /** Against the first row, in nats per target token; largest over the steps. */
  max_loss_diff: number;
  /** |W - W_first| / |W_first - W_0| over the whole adapter: error against the size of what was learned. */
  rel_adapter_diff: number;
  passed: boolean;
}

const STEPS = 10;
/** Rounding of another order of summation, grown by Adam over ten steps. Measured on nano on the CPU: 2e-8 and 2e-6. */
const FLOAT32_BOUNDS = { loss: 1e-5, adapter: 1e-3 };
/** bfloat16 has 8 bits: two digits of the loss. */
const BFLOAT16_BOUNDS = { loss: 0.05, adapter: null };

/** Small steps on one layer in the middle: what most organisms are. */
const RECIPE: Recipe = {
  ...{ r: 4, lora_alpha: 8, target_modules: ["down_proj"], layers_to_transform: "mid", learning_rate: 1e-3 },
  ...{ per_device_train_batch_size: 8, gradient_accumulation_steps: 2, max_steps: STEPS, seed: 0, dtype: "float32" },
};

function variants(cuda: boolean): Variant[] {
  const make = (name: string, more: Partial<Variant> = {}): Variant => ({
    ...{ name, cuda: false, cached: false, recipe: {}, bounds: FLOAT32_BOUNDS },
    ...more,
  });
  const cpu = [
    make("cpu float32"),
    make("cpu float32, packed", { recipe: { batching: "packed" } }),
    make("cpu float32, cached prefix", { cached: true }),
  ];
  if (!cuda) return cpu;
  return [
    ...cpu,
    make("cuda float32", { cuda }),
    make("cuda float32, packed", { cuda, recipe: { batching: "packed" } }),
    make("cuda float32, cached prefix", { cuda, cached: true }),
    make("cuda float32, gradient checkpointing", { cuda, recipe: { gradient_checkpointing: "on" } }),
    make("cuda bfloat16", { cuda, recipe: { dtype: "bfloat16" }, bounds: BFLOAT16_BOUNDS }),
  ];
}

/**
 * Trains the same few steps in every way that this machine has and compares losses and adapters with the plain one on
 * the CPU. Writes into a scratch folder only.
 */
export async function selfTest(
  staged: StagedModel,
  data: LoadedDataset,
  workspace: Workspace,
  { signal, onRow }: { signal: AbortSignal; onRow(row: SelfTestRow): void },
): Promise<SelfTestRow[]> {
  const scratch = await mkdtemp(join(tmpdir(), "vivarium-self-test-"));
  const rows: SelfTestRow[] = [];
  let reference: Trained | undefined;
  try {
    for (const [index, variant] of variants(workspace.cuda).entries()) {
      const trained = await trainVariant(variant, join(scratch, String(index)), { staged, data, workspace, signal });
      reference ??= trained;
      const row = compare(variant, trained, reference);
      rows.push(row);
      onRow(row);
    }
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
  return rows;
}

interface Trained {
  hello: Hello;
  steps: TrainStep[];
  before: Float32Array;
  after: Float32Array;
}

interface Inputs {
  staged: StagedModel;
  data: LoadedDataset;
  workspace: Workspace;
  signal: AbortSignal;
}

async function trainVariant(variant: Variant, dir: string, inputs: Inputs): Promise<Trained> {
  const { workspace, signal } = inputs;
  const { env, ...command } = bridgeCommand(await workspace.python());
  const steps: TrainStep[] = [];
  const { hello } = await runJob(variantJob(variant, dir, inputs), {
    ...command,
    env: variant.cuda ? env : { ...env, CUDA_VISIBLE_DEVICES: "" },
    signal,
    log_dir: join(dir, "logs"),
    onEvent: (event) => {
      if (event.type === "train_step") steps.push(event);
    },
  });
  const run_dir = join(dir, "run");
  return { hello, steps, before: adapterWeights(run_dir, 0), after: adapterWeights(run_dir, STEPS) };
}

function variantJob(variant: Variant, dir: string, { staged, data, workspace }: Inputs): TrainJob {
  const target = { n_layers: staged.model.n_layers, rows: data.rows.length, cuda: variant.cuda };
  const { lora, rendering, training } = resolveRecipe([RECIPE, variant.recipe], target);
  return {
    type: "train",
    base_model_dir: staged.dir,
    base_sha256: staged.sha256,
    num_threads: workspace.num_threads,
    prefix_cache: { enabled: variant.cached, max_bytes: 1e9, dir: join(dir, "prefix") },
    runs: [
      {
        run_dir: join(dir, "run"),
        dataset_file: data.file,
        eval_dataset_file: null,
        kl_dataset_file: null,
        chat_template_kwargs: thinkingKwargs(staged.chat.template, rendering.thinking),
        ...{ rendering, lora, training },
      },
    ],
  };
}

/** All adapter weights of a checkpoint after one another, by name. */
function adapterWeights(run_dir: string, step: number): Float32Array {
  const file = openSafetensors(join(run_dir, `checkpoint-${step}`, "adapter_model.safetensors"));
  const tensors = [...file.tensors.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  return Float32Array.from(tensors.flatMap((tensor) => [...readTensorF32(file.file, tensor)]));
}

function compare(variant: Variant, found: Trained, reference: Trained): SelfTestRow {
  const losses = found.steps.map(({ loss }, i) =>
    Math.abs((loss ?? Number.NaN) - (reference.steps[i]?.loss ?? Number.NaN)),
  );
  const max_loss_diff = losses.length === STEPS ? Math.max(...losses) : Number.NaN;
  const rel_adapter_diff = distance(found.after, reference.after) / distance(reference.after, reference.before);
  const { bounds } = variant;
  const rates = found.steps.slice(1).map(({ tokens_per_second }) => tokens_per_second);
  return {
    name: variant.name,
    device: found.hello.device,
    tokens_per_second: Math.max(...rates),
    mfu: found.steps.at(-1)?.mfu ?? null,
    peak_memory_bytes: Math.max(...found.steps.map(({ peak_memory_bytes }) => peak_memory_bytes)),
    ...{ max_loss_diff, rel_adapter_diff },
    passed: max_loss_diff <= bounds.loss && (bounds.adapter === null || rel_adapter_diff <= bounds.adapter),
  };
}

function distance(a: Float32Array, b: Float32Array): number {
  if (a.length !== b.length) return Number.NaN;
  return Math.sqrt(a.reduce((sum, value, i) => sum + (value - (b[i] as number)) ** 2, 0));
}
