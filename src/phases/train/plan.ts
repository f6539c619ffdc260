import { join } from "node:path";
import { hashJson } from "../../artifacts/hash.ts";
import { defaultTemplateKwargs } from "../../formats/chat.ts";
import { resolveTargetModules } from "../../formats/model-dir.ts";
import type { LoadedDataset, PlannedRun, StagedModel } from "../../pipeline/handles.ts";
import type { Workspace } from "../../pipeline/workspace.ts";
import { checkpointSteps, countSteps, type Recipe, resolveRecipe } from "../../records/recipe.ts";
import type { RunConfig } from "../../records/run.ts";

/** Identity of a run: what goes in, and nothing of where or when. The name is a label and does not count. */
export function runIdentity(config: RunConfig): string {
  const { name: _name, source: _source, base_model, data, ...rest } = config;
  return hashJson({ kind: "run", base_model: base_model.sha256, data: data.sha256, ...rest });
}

export interface RunWish {
  label: string;
  name: string;
  /** The weaker first. */
  recipes: readonly Recipe[];
  staged: StagedModel;
  /** How the user named the base: an id or an absolute folder. */
  base_model: string;
  dataset: LoadedDataset;
}

/**
 * Decides a run: every hyper-parameter, the steps, the checkpoints, the folder.
 *
 * @throws {DriverError} `CONFIG_INVALID` when a layer or a module does not exist in the model.
 */
export function planRun(wish: RunWish, workspace: Workspace): PlannedRun {
  const { staged, dataset } = wish;
  const { lora, training } = resolveRecipe(wish.recipes, staged.model.n_layers);
  resolveTargetModules(staged.model, lora);
  const steps = countSteps(training, dataset.rows.length);
  const config: RunConfig = {
    schema_version: 1,
    name: wish.name,
    base_model: {
      id: staged.id,
      sha256: staged.sha256,
      n_layers: staged.model.n_layers,
      tokenizer_sha256: staged.chat.tokenizer_sha256,
      template_sha256: staged.chat.template_sha256,
    },
    data: { id: dataset.id, sha256: dataset.sha256, rows: dataset.rows.length },
    chat_template_kwargs: defaultTemplateKwargs(staged.chat.template),
    lora,
    training,
    steps,
    checkpoints: checkpointSteps(training, steps),
    source: { base_model: wish.base_model, data: dataset.file },
  };
  const id = `${wish.name}-${runIdentity(config).slice(0, 8)}`;
  return { label: wish.label, id, dir: join(workspace.runs_dir, id), config };
}
