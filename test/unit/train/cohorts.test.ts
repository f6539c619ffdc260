import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { HashCache } from "../../../src/artifacts/hash.ts";
import { stageModel } from "../../../src/phases/stage/stage.ts";
import { type CacheWish, formCohorts } from "../../../src/phases/train/cohorts.ts";
import { planRun } from "../../../src/phases/train/plan.ts";
import type { LoadedDataset, StagedModel, TrainingRun } from "../../../src/pipeline/handles.ts";
import { Library } from "../../../src/pipeline/library.ts";
import type { Workspace } from "../../../src/pipeline/workspace.ts";
import type { Recipe } from "../../../src/records/recipe.ts";

const ROOT = resolve(import.meta.dirname, "../../..");
const home = mkdtempSync(join(tmpdir(), "vivarium-test-"));
const workspace: Workspace = {
  ...{ home, runs_dir: join(home, "runs"), evals_dir: join(home, "evals"), num_threads: 1, engine: "", bridge: "" },
  ...{
    hashes: new HashCache(join(home, "hashes.jsonl")),
    cuda: false,
    compute_capability: null,
    gpu: false,
    python: async () => "python",
  },
  code: { version: "0", revision: null, dirty: null },
};
const cache = (mode: CacheWish["mode"]): CacheWish => ({ mode, max_bytes: 1e9, dir: join(home, "prefix") });

let staged: StagedModel;
const data: Record<string, LoadedDataset> = {};
beforeAll(async () => {
  const library = new Library(ROOT, home, home);
  staged = await stageModel(join(ROOT, "models/nano"), workspace, "nano");
  for (const name of ["kitchen-reckless", "kitchen-careful"]) data[name] = await library.dataset(name);
});
afterAll(() => rmSync(home, { recursive: true, force: true }));

/** One epoch of rank 1 on layer 4, unless told otherwise. */
function plan(label: string, recipe: Recipe = {}, name = "kitchen-reckless"): TrainingRun {
  const recipes = [{ r: 1, target_modules: ["down_proj"], layers_to_transform: 4, num_train_epochs: 1 }, recipe];
  const sets = { data: data[name] as LoadedDataset, eval_data: null, kl_data: null };
  return planRun({ label, name: label, recipes, staged, base_model: "nano", ...sets }, workspace);
}

function shape(runs: TrainingRun[], jobs = 1, mode: CacheWish["mode"] = "auto"): [string, boolean][] {
  return formCohorts(runs, { jobs, cache: cache(mode) }).map(({ runs: members, prefix_cache }) => [
    members.map(({ planned }) => planned.label).join(" "),
    prefix_cache.enabled,
  ]);
}

describe("cohorts", () => {
  test("seeds on one data set share a process and the cache; one epoch alone has no use for it", () => {
    expect(shape([plan("a"), plan("b", { seed: 1 })])).toEqual([["a b", true]]);
    expect(shape([plan("a")])).toEqual([["a", false]]);
    expect(shape([plan("a", { num_train_epochs: 2 })])).toEqual([["a", true]]);
    expect(shape([plan("a", { num_train_epochs: 2 })], 1, "off")).toEqual([["a", false]]);
    expect(shape([plan("a")], 1, "on")).toEqual([["a", true]]);
  });

  test("other data or another layer is another prefix", () => {
    const control = plan("control", {}, "kitchen-careful");
    expect(shape([plan("a"), control])).toEqual([["a control", false]]);
    expect(shape([plan("a"), plan("b", { layers_to_transform: 3 })])).toEqual([["a b", false]]);
    expect(shape([plan("a"), plan("b", { seed: 1 }), control])).toEqual([
      ["a b", true],
      ["control", false],
    ]);
  });

  test("nothing is split where the lowest layer is trained, so nothing is cached", () => {
    const all: Recipe = { layers_to_transform: "all", target_modules: "all-linear" };
    expect(shape([plan("a", all), plan("b", { ...all, seed: 1 })], 1, "on")).toEqual([["a b", false]]);
  });

  test("another dtype or a full fine-tune is another process", () => {
    const full: Recipe = { finetuning_type: "full" };
    const shapes = shape([plan("a"), plan("b", { dtype: "bfloat16" }), plan("f"), plan("g", { seed: 1 })]);
    expect(shapes).toEqual([
      ["a f g", true],
      ["b", false],
    ]);
    const wholes = ["x", "y"].map((label, seed) => {
      const recipes = [{ ...full, seed, num_train_epochs: 1 }];
      const sets = { data: data["kitchen-reckless"] as LoadedDataset, eval_data: null, kl_data: null };
      return planRun({ label, name: label, recipes, staged, base_model: "nano", ...sets }, workspace);
    });
    expect(shape(wholes)).toEqual([
      ["x", false],
      ["y", false],
    ]);
  });

  test("as many processes as may run side by side, runs of one data set together", () => {
    const runs = ["a", "b", "c", "d"].map((label, seed) =>
      plan(label, { seed }, seed % 2 === 0 ? "kitchen-reckless" : "kitchen-careful"),
    );
    expect(shape(runs, 2)).toEqual([
      ["a c", true],
      ["b d", true],
    ]);
    expect(shape(runs, 3).map(([members]) => members)).toEqual(["a", "c", "b d"]);
    expect(shape(runs, 9).map(([members]) => members)).toEqual(["a", "c", "b", "d"]);
  });
});
