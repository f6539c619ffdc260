import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { parseModelConfig } from "../../../src/formats/model-config.ts";
import { largestBatch } from "../../../src/phases/train/estimate.ts";
import { checkpointBytes } from "../../../src/phases/train/estimate-disk.ts";
import { passFlops } from "../../../src/phases/train/estimate-flops.ts";
import { activationBytes } from "../../../src/phases/train/estimate-memory.ts";
import type { LoraShape } from "../../../src/records/lora.ts";
import { ROOT } from "../../helpers/cli.ts";

/** What the driver tells before a run, against what torch, PEFT and safetensors really do. */

const DIMENSIONS = {
  vocab_size: 512,
  hidden_size: 64,
  intermediate_size: 160,
  num_hidden_layers: 4,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 256,
};
const QWEN2 = { model_type: "qwen2", tie_word_embeddings: true, ...DIMENSIONS };
const QWEN3 = { model_type: "qwen3", tie_word_embeddings: false, head_dim: 32, ...DIMENSIONS };

const lora = (shape: Partial<LoraShape>): LoraShape => ({
  r: 8,
  lora_alpha: 8,
  use_rslora: false,
  use_dora: false,
  lora_dropout: 0,
  target_modules: "all-linear",
  layers_to_transform: null,
  rank_pattern: {},
  alpha_pattern: {},
  ...shape,
});

const LORAS: Record<string, LoraShape | null> = {
  "rank 1 on one down_proj": lora({ r: 1, target_modules: ["down_proj"], layers_to_transform: [2] }),
  "rank 8 on all linear layers": lora({}),
  "rank 2 on q_proj of two layers": lora({ r: 2, target_modules: ["q_proj"], layers_to_transform: [1, 3] }),
  "ranks by pattern, with dropout": lora({
    target_modules: ["o_proj", "up_proj"],
    layers_to_transform: [1, 2],
    rank_pattern: { up_proj: 3 },
    lora_dropout: 0.1,
  }),
  "all weights": null,
};

type Rows = [tokens: number, targets: number][];
const EQUAL: Rows = [
  [96, 40],
  [96, 40],
];
const UNEQUAL: Rows = [
  [96, 40],
  [70, 30],
];

interface Case {
  config: typeof QWEN2 | typeof QWEN3;
  lora: LoraShape | null;
  dtype: "float32" | "bfloat16";
  rows: Rows;
  gradient_checkpointing: boolean;
}

interface Measured {
  saved_bytes: number;
  flops: { forward: number; backward: number };
  file_bytes: number | null;
}

/** Pairs of architecture and dtype with every adapter, then the two others with two of them, then checkpointing. */
const CASES: [string, Case][] = [
  ...Object.keys(LORAS).flatMap((name) => [make(QWEN2, "bfloat16", name), make(QWEN3, "float32", name)]),
  ...Object.keys(LORAS)
    .slice(0, 2)
    .flatMap((name) => [make(QWEN2, "float32", name), make(QWEN3, "bfloat16", name)]),
  ...Object.keys(LORAS)
    .filter((name) => !name.includes("pattern"))
    .map((name) => make(QWEN3, "bfloat16", name, true)),
];

function make(
  config: Case["config"],
  dtype: Case["dtype"],
  name: string,
  gradient_checkpointing = false,
): [string, Case] {
  const rows = dtype === "float32" ? UNEQUAL : EQUAL;
  const title = `${config.model_type}, ${dtype}, ${name}${gradient_checkpointing ? ", checkpointed" : ""}`;
  return [title, { config, dtype, lora: LORAS[name] ?? null, rows, gradient_checkpointing }];
}

const DORA: Case = {
  config: QWEN3,
  lora: lora({ use_dora: true, target_modules: ["v_proj", "down_proj"] }),
  dtype: "float32",
  rows: EQUAL,
  gradient_checkpointing: false,
};

const python = process.env.VIVARIUM_PYTHON;

describe.skipIf(!python)("estimates against torch (needs VIVARIUM_PYTHON)", { timeout: 300_000 }, () => {
  let found: Measured[] = [];
  beforeAll(() => {
    const { stdout, stderr, status } = spawnSync(
      python ?? "",
      [join(ROOT, "test/helpers/python/measure_training.py")],
      {
        input: JSON.stringify([...CASES.map(([, one]) => one), DORA]),
        env: { ...process.env, PYTHONPATH: join(ROOT, "python-bridge", "src"), HF_HUB_OFFLINE: "1" },
        encoding: "utf8",
        maxBuffer: 1e8,
      },
    );
    expect(status, stderr).toBe(0);
    found = JSON.parse(stdout);
  }, 300_000);

  const configOf = ({ config }: Case) => {
    const parsed = parseModelConfig(config);
    if (parsed.config === null) throw new Error(parsed.problems.join());
    return parsed.config;
  };
  const counts = ({ rows }: Case) => rows.map(([tokens, targets]) => ({ tokens, targets }));
  const batchOf = (one: Case) =>
    largestBatch(counts(one), { per_device_train_batch_size: one.rows.length, batching: "by_length" });

  test.each(CASES.map(([name, one], index) => [name, one, index] as const))(
    "bytes that autograd keeps: %s",
    (_name, one, index) => {
      const { plain, checkpoints } = activationBytes(configOf(one), one.lora, one, batchOf(one));
      const ratio = (one.gradient_checkpointing ? checkpoints : plain) / (found[index] as Measured).saved_bytes;
      // On the CPU a dropout mask takes four bytes an element; the estimate is for CUDA, where it takes one.
      const tolerance = (one.lora?.lora_dropout ?? 0) > 0 ? 0.1 : 0.01;
      expect(Math.abs(ratio - 1)).toBeLessThan(tolerance);
    },
  );

  test.each(
    CASES.map(([name, one], index) => [name, one, index] as const).filter(([, one]) => !one.gradient_checkpointing),
  )("operations: %s", (_name, one, index) => {
    const { slots, width, rows, targets } = batchOf(one);
    // torch counts padding, and attention without its causal mask.
    const pass = passFlops(configOf(one), one.lora, { tokens: slots, pairs: rows * width * width, targets });
    const { forward, backward } = (found[index] as Measured).flops;
    expect((pass.prefix + pass.forward + pass.backward) / (forward + backward)).toBeCloseTo(1, 2);
  });

  test.each([...CASES.map(([name, one], index) => [name, one, index] as const), ["DoRA", DORA, CASES.length] as const])(
    "bytes of the adapter's file: %s",
    (_name, one, index) => {
      const { file_bytes } = found[index] as Measured;
      if (one.lora === null || file_bytes === null) expect(file_bytes).toBeNull();
      else expect(checkpointBytes(configOf(one), one.lora, one)).toBe(file_bytes);
    },
  );

  test("DoRA keeps about what is estimated", () => {
    const { plain } = activationBytes(configOf(DORA), DORA.lora, DORA, batchOf(DORA));
    const ratio = plain / (found[CASES.length] as Measured).saved_bytes;
    expect(ratio).toBeGreaterThan(0.8);
    expect(ratio).toBeLessThan(1.2);
  });
});
