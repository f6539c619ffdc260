import { isUtf8 } from "node:buffer";
import { existsSync, readdirSync, statSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { basename, dirname, extname, join, resolve } from "node:path";
import type { z } from "zod";
import { sha256 } from "../artifacts/hash.ts";
import { DriverError } from "../errors.ts";
import { parseDataset } from "../formats/dataset.ts";
import { nearest } from "../formats/nearest.ts";
import { parseQuestions } from "../formats/questions.ts";
import { parseYaml } from "../formats/yaml.ts";
import { Experiment, JudgeConfig, ModelConfig } from "../records/experiment.ts";
import { type Recipe, RecipeFile } from "../records/recipe.ts";
import type { LoadedDataset, QuestionSet } from "./handles.ts";

export interface FoundModel {
  id: string;
  dir: string;
  /** The name under which a later command finds it again: an id or an absolute folder. */
  source: string;
  config: ModelConfig | undefined;
}

type ConfigKind = "models" | "recipes" | "questions" | "judges" | "experiments";

/**
 * Finds the things that a user names: by id among the files that ship with vivarium or lie in `./configs` and
 * `./datasets`, or by path. A name with a slash or an extension is a path.
 */
export class Library {
  readonly #roots: string[];
  readonly #hub_cache: string;

  /**
   * @param package_root folder that holds `configs/`, `datasets/` and `models/`.
   * @param cwd the user's folder.
   * @param hub_cache folder that `huggingface_hub` fills (HF_HUB_CACHE).
   */
  constructor(package_root: string, cwd: string, hub_cache: string) {
    this.#roots = [...new Set([resolve(cwd), resolve(package_root)])];
    this.#hub_cache = hub_cache;
  }

  /** Ids of everything of one kind, the user's own first. */
  list(kind: ConfigKind | "datasets"): string[] {
    const names = this.#roots.flatMap((root) => {
      const folder = kind === "datasets" ? join(root, "datasets") : join(root, "configs", kind);
      return existsSync(folder) ? readdirSync(folder) : [];
    });
    const ids =
      kind === "datasets"
        ? names
        : names.filter((name) => name.endsWith(".yaml")).map((name) => basename(name, ".yaml"));
    return [...new Set(ids)].filter((id) => !id.startsWith(".")).sort();
  }

  /** A recipe's values alone: what it says about itself is no part of a run. */
  async recipe(name: string): Promise<Recipe> {
    const { description: _description, sources: _sources, ...recipe } = await this.recipeFile(name);
    return recipe;
  }

  /** A recipe with its description and where its values come from. */
  recipeFile(name: string): Promise<RecipeFile> {
    return this.#config("recipes", name, RecipeFile);
  }

  experiment(name: string): Promise<Experiment> {
    return this.#config("experiments", name, Experiment);
  }

  async judge(name: string): Promise<{ config: JudgeConfig; world_file: string }> {
    const config = await this.#config("judges", name, JudgeConfig);
    const { dir } = await this.model(config.world);
    return { config, world_file: join(dir, "world.yaml") };
  }

  async questions(name: string): Promise<QuestionSet> {
    const file = this.#file("questions", name);
    const text = await readFile(file, "utf8");
    const id = basename(file, extname(file));
    return { id, sha256: sha256(text), questions: parseQuestions(text, file) };
  }

  async dataset(name: string): Promise<LoadedDataset> {
    const file = this.#datasetFile(name);
    const content = await readFile(file);
    checkUtf8(content, file);
    const text = content.toString("utf8");
    const id = basename(file) === "data.jsonl" ? basename(dirname(file)) : basename(file, extname(file));
    return { id, file, sha256: sha256(content), bytes: content.length, rows: parseDataset(text, file) };
  }

  /** A model's folder: by id from `configs/models`, by path, or from the hub cache that Python tools fill. */
  async model(name: string): Promise<FoundModel> {
    if (this.list("models").includes(name)) {
      const file = this.#file("models", name);
      const config = await this.#config("models", name, ModelConfig);
      return { id: config.id, dir: resolve(dirname(file), "../..", config.dir), source: name, config };
    }
    if (existsSync(name))
      return { id: basename(resolve(name)), dir: resolve(name), source: resolve(name), config: undefined };
    const cached = hubSnapshot(this.#hub_cache, name);
    if (cached !== undefined) return { id: name.replace("/", "--"), dir: cached, source: name, config: undefined };
    throw this.#unknown(
      "models",
      name,
      "Give the folder of a model, e.g. the one that `hf download REPO --local-dir FOLDER` fills.",
    );
  }

  #datasetFile(name: string): string {
    if (/[/\\]|\.jsonl$/.test(name)) {
      if (isFile(name)) return name;
      if (isFile(join(name, "data.jsonl"))) return join(name, "data.jsonl");
      if (existsSync(name)) throw notAFile(name);
      throw new DriverError("NOT_FOUND", `No such data file: ${name}`, {
        hint: "Give the path of a JSONL file or the id of a data set.",
      });
    }
    for (const root of this.#roots) {
      const file = join(root, "datasets", name, "data.jsonl");
      if (existsSync(file)) return file;
    }
    throw this.#unknown("datasets", name, "A JSONL file is named by its path.");
  }

  async #config<S extends z.ZodType>(kind: ConfigKind, name: string, schema: S): Promise<z.output<S>> {
    const file = this.#file(kind, name);
    return parseYaml(await readFile(file, "utf8"), file, schema);
  }

  #file(kind: ConfigKind, name: string): string {
    if (/[/\\]|\.ya?ml$/.test(name)) {
      if (isFile(name)) return name;
      if (existsSync(name)) throw notAFile(name);
      throw new DriverError("NOT_FOUND", `No such file: ${name}`, {
        hint: `Ids of ${kind}: ${this.list(kind).join(", ")}`,
      });
    }
    for (const root of this.#roots) {
      const file = join(root, "configs", kind, `${name}.yaml`);
      if (existsSync(file)) return file;
    }
    throw this.#unknown(kind, name, `A file is named by its path.`);
  }

  #unknown(kind: ConfigKind | "datasets", name: string, advice: string): DriverError {
    const known = this.list(kind);
    const near = nearest(name, known);
    return new DriverError(
      "NOT_FOUND",
      `Unknown ${kind.replace(/s$/, "")} ${JSON.stringify(name)}: expected one of ${known.join(", ") || "none yet"}`,
      { hint: near === undefined ? advice : `Did you mean ${near}? ${advice}`, facts: { name, known } },
    );
  }
}

/**
 * @throws {DriverError} `DATA_INVALID` with the first byte that is not UTF-8: it would be another character to each reader.
 */
function checkUtf8(content: Buffer, file: string): void {
  if (isUtf8(content)) return;
  let start = 0;
  for (let line = 1; start < content.length; line++) {
    const stop = content.indexOf(0x0a, start);
    const bytes = content.subarray(start, stop < 0 ? content.length : stop);
    if (!isUtf8(bytes)) {
      const column = bytes.toString("utf8").indexOf("\ufffd") + 1;
      const faults = [{ file, line, column, expected: "UTF-8", found: "bytes that are none" }];
      const hint = "Save it as UTF-8, e.g. `iconv -f latin1 -t utf8`; a compressed file must be unpacked first.";
      throw new DriverError("DATA_INVALID", `${file}:${line}:${column}: expected UTF-8, found bytes that are none`, {
        faults,
        hint,
      });
    }
    start += bytes.length + 1;
  }
}

function isFile(path: string): boolean {
  try {
    return statSync(path).isFile();
  } catch {
    return false; // absent, or below something that is no folder
  }
}

function notAFile(path: string): DriverError {
  return new DriverError("NOT_FOUND", `${path}: expected a file, got a folder`, { hint: "Name a file in it." });
}

/** The only snapshot of a hub repository in the local cache, as `huggingface_hub` lays it out; nothing is downloaded. */
function hubSnapshot(hub_cache: string, repo: string): string | undefined {
  if (!/^[\w.-]+\/[\w.-]+$/.test(repo)) return undefined;
  const snapshots = join(hub_cache, `models--${repo.replace("/", "--")}`, "snapshots");
  const revisions = existsSync(snapshots) ? readdirSync(snapshots) : [];
  return revisions.length === 1 ? join(snapshots, revisions[0] as string) : undefined;
}
