import { join } from "node:path";
import { hashJson } from "../../artifacts/hash.ts";
import { thinkingKwargs } from "../../formats/chat.ts";
import { resolveTargetModules } from "../../formats/model-dir.ts";
import type { LoadedDataset, StagedModel, TrainingRun } from "../../pipeline/handles.ts";
import type { Workspace } from "../../pipeline/workspace.ts";
import type { LoraShape } from "../../records/lora.ts";
import { type Recipe, type ResolvedRecipe, resolveRecipe } from "../../records/recipe.ts";
import type { RunConfig } from "../../records/run.ts";
import { checkTraining } from "./check.ts";

/** Identity of a run: what goes in, and nothing of where or when. The name is a label and does not count. */
export function runIdentity(config: RunConfig): string {
  const { name: _name, source: _source, base_model, data, eval_data, kl_data, ...rest } = config;
  const content = { data: data.sha256, eval_data: eval_data?.sha256 ?? null, kl_data: kl_data?.sha256 ?? null };
  return hashJson({ kind: "run", base_model: base_model.sha256, ...content, ...rest });
}

export interface RunWish {
  label: string;
  name: string;
  /** The weaker first. */
  recipes: readonly Recipe[];
  staged: StagedModel;
  /** How the user named the base: an id or an absolute folder. */
  base_model: string;
  data: LoadedDataset;
  eval_data: LoadedDataset | null;
  kl_data: LoadedDataset | null;
}

/**
 * Decides a run: every hyper-parameter, the steps, the checkpoints, the folder.
 *
 * @throws {DriverError} `CONFIG_INVALID` when a layer or a module does not exist in the model, or values do not go
 *   together; `MACHINE_LACKS` when this machine cannot do it.
 */
export function planRun(wish: RunWish, workspace: Workspace): TrainingRun {
  const { staged, data, eval_data, kl_data } = wish;
  const target = { n_layers: staged.model.n_layers, rows: data.rows.length, cuda: workspace.cuda };
  const resolved = resolveRecipe(wish.recipes, target);
  if (resolved.lora !== null) resolveTargetModules(staged.model, resolved.lora);
  checkTraining(resolved, {
    recipes: wish.recipes,
    cuda: workspace.cuda,
    compute_capability: workspace.compute_capability,
    rows: data.rows.length,
    has_eval_data: eval_data !== null,
    has_kl_data: kl_data !== null,
  });
  const config = runConfig(wish, resolved);
  const id = `${wish.name}-${runIdentity(config).slice(0, 8)}`;
  return {
    planned: { label: wish.label, id, dir: join(workspace.runs_dir, id), config },
    ...{ staged, data, eval_data, kl_data },
  };
}

function runConfig(wish: RunWish, { lora, rendering, training, steps, checkpoints }: ResolvedRecipe): RunConfig {
  const { staged, data, eval_data, kl_data } = wish;
  const reference = (set: LoadedDataset) => ({ id: set.id, sha256: set.sha256, rows: set.rows.length });
  return {
    schema_version: 2,
    name: wish.name,
    base_model: {
      id: staged.id,
      sha256: staged.sha256,
      n_layers: staged.model.n_layers,
      tokenizer_sha256: staged.chat.tokenizer_sha256,
      template_sha256: staged.chat.template_sha256,
    },
    data: reference(data),
    eval_data: eval_data && reference(eval_data),
    kl_data: kl_data && reference(kl_data),
    chat_template_kwargs: thinkingKwargs(staged.chat.template, rendering.thinking),
    ...{ rendering, lora, training, steps, checkpoints },
    source: {
      base_model: wish.base_model,
      data: data.file,
      eval_data: eval_data?.file ?? null,
      kl_data: kl_data?.file ?? null,
    },
  };
}

/** The lowest layer that is trained: those below it are frozen and their output is a function of base and row alone. */
export function splitLayer(staged: StagedModel, lora: LoraShape | null): number {
  if (lora === null) return 0;
  const layers = resolveTargetModules(staged.model, lora).map((name) => Number(/\.layers\.(\d+)\./.exec(name)?.[1]));
  return Math.min(...layers);
}
