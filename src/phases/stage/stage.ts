import { existsSync } from "node:fs";
import { stat } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { hashJson } from "../../artifacts/hash.ts";
import { readManifest, writeManifest } from "../../artifacts/manifest.ts";
import { loadChatFormat } from "../../formats/chat.ts";
import { openModelDir } from "../../formats/model-dir.ts";
import type { StagedModel } from "../../pipeline/handles.ts";
import type { WorkUnit } from "../../pipeline/unit.ts";
import type { Workspace } from "../../pipeline/workspace.ts";

/** Files beside the weights that change what a model does; other files of the folder do not count. */
const COMPANIONS = [
  "config.json",
  "generation_config.json",
  "tokenizer.json",
  "tokenizer_config.json",
  "chat_template.jinja",
];

/**
 * Opens a model folder, checks that it can be trained and served, and hashes what counts.
 *
 * Hashes are remembered by size and modification time, so that planning does not read large weights twice.
 *
 * @throws {DriverError} `MODEL_INVALID` with everything that is missing or unsupported.
 */
export async function stageModel(dir: string, workspace: Workspace, id = basename(resolve(dir))): Promise<StagedModel> {
  const model = openModelDir(dir);
  const chat = await loadChatFormat(dir);
  const names = [...COMPANIONS.filter((name) => existsSync(join(dir, name))), ...model.weight_files].sort();
  const files = await Promise.all(
    names.map(async (path) => ({
      path,
      sha256: await workspace.hashes.sha256(join(dir, path)),
      bytes: (await stat(join(dir, path))).size,
    })),
  );
  const sha256 = hashJson(Object.fromEntries(files.map((file) => [file.path, file.sha256])));
  return { id, dir: resolve(dir), sha256, files, model, chat };
}

/** The unit that records a staged model under `$VIVARIUM_HOME/models/`, so that a later run can say which files it saw. */
export function stageUnit(staged: StagedModel, workspace: Workspace): WorkUnit {
  const output = join(workspace.home, "models", `${staged.id}-${staged.sha256.slice(0, 12)}.json`);
  const bytes = staged.files.reduce((sum, file) => sum + file.bytes, 0);
  return {
    key: `stage ${staged.id}`,
    phase: "stage",
    needs: [],
    output,
    summary: `${staged.files.length} files, ${(bytes / 1e6).toFixed(1)} MB, ${staged.model.architecture}, ${staged.model.n_layers} layers`,
    isDone: async () => (await readManifest(output)) !== undefined,
    run: () =>
      writeManifest(output, {
        schema_version: 1,
        kind: "base",
        id: staged.sha256,
        status: "success",
        inputs: [...staged.files],
        outputs: [],
        code: workspace.code,
        packages: {},
        device: "none",
        seed: null,
        wall_seconds: null,
        facts: {
          name: staged.id,
          architecture: staged.model.architecture,
          n_layers: staged.model.n_layers,
          tokenizer_sha256: staged.chat.tokenizer_sha256,
          template_sha256: staged.chat.template_sha256,
        },
      }),
  };
}
