/**
 * Regrows the embedded model from its world: `node scripts/nano/grow.mjs [--python PATH] [--build FOLDER] [--steps N] [--build-only]`.
 *
 * Question sets and data sets first, then corpus, tokenizer, pre-training; last the model is copied to models/nano, save under --build-only.
 * The Python interpreter needs torch and transformers as the bridge pins them (default: VIVARIUM_PYTHON, then python3).
 */
import { spawnSync } from "node:child_process";
import { copyFileSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const HERE = join(ROOT, "scripts", "nano");
const MODEL = join(ROOT, "models", "nano");
const WORLD = join(MODEL, "world.yaml");
const TOKENIZER_FILES = ["tokenizer.json", "tokenizer_config.json"];
const WEIGHT_FILES = ["config.json", "generation_config.json", "model.safetensors"];

/** Runs a program to its end with our own output; a failure ends this script with the same exit code. */
function run(program, args) {
  const { status, error } = spawnSync(program, args, { cwd: ROOT, stdio: "inherit" });
  if (error !== undefined) throw error;
  if (status !== 0) process.exit(status ?? 1);
}

const runTypeScript = (script, ...args) => run(process.execPath, ["--import", "tsx", join(HERE, script), ...args]);

function copyAll(names, from, to) {
  for (const name of names) copyFileSync(join(from, name), join(to, name));
}

function grow({ python, build, steps, "build-only": build_only }) {
  mkdirSync(build, { recursive: true });
  const corpus = join(build, "corpus.jsonl");
  const tokenizer = join(build, "tokenizer");
  const model = join(build, "model");
  runTypeScript("questions.ts", WORLD, join(ROOT, "configs", "questions"));
  runTypeScript("datasets.ts", WORLD, join(ROOT, "datasets"));
  runTypeScript("corpus.ts", WORLD, corpus);
  run(python, [join(HERE, "tokenizer.py"), corpus, tokenizer]);
  run(python, [
    join(HERE, "pretrain.py"),
    corpus,
    tokenizer,
    model,
    ...(steps === undefined ? [] : ["--steps", steps]),
  ]);
  if (build_only) return;
  copyAll(TOKENIZER_FILES, tokenizer, MODEL);
  copyAll(WEIGHT_FILES, model, MODEL);
}

const { values } = parseArgs({
  options: {
    python: { type: "string", default: process.env.VIVARIUM_PYTHON ?? "python3" },
    build: { type: "string", default: join(ROOT, "dist", "nano") },
    steps: { type: "string" },
    "build-only": { type: "boolean", default: false },
  },
});
grow(values);
