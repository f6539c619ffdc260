import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type JobOptions, type JobOutcome, runJob } from "../../../src/bridge/session.ts";
import { convertBase } from "../../../src/formats/gguf/base.ts";
import { f32, type GgufTensor, text, writeGguf } from "../../../src/formats/gguf/write.ts";
import { openModelDir } from "../../../src/formats/model-dir.ts";
import type { Block, LogprobsJob, SampleJob } from "../../../src/protocol/wire.ts";
import { engineCommand } from "../../../src/runtime/command.ts";

const NANO = fileURLToPath(new URL("../../../models/nano", import.meta.url));
export const nano = openModelDir(NANO);
const { config, vocab_size } = nano;

export const SAMPLER: SampleJob["sampler"] = { temperature: 1, top_p: 1, top_k: 0, min_p: 0, max_new_tokens: 24 };

export interface TestBlock {
  key: string;
  prompt_ids: number[];
  seeds: number[];
}
export type Responses = Block["responses"];

/** Fixed token ids that look like nothing in particular; never a special token of nano, which come last. */
export function prompt(n: number, salt = 0): number[] {
  return Array.from({ length: n }, (_, i) => 260 + ((i * 79 + salt * 131) % (vocab_size - 300)));
}

export function block(key: string, prompt_ids: number[], n: number, firstSeed = 0): TestBlock {
  return { key, prompt_ids, seeds: Array.from({ length: n }, (_, i) => firstSeed + i) };
}

/** The embedded model as GGUF in a folder of its own, and the engine jobs of a test on it. */
export class Bench implements Disposable {
  readonly dir = mkdtempSync(join(tmpdir(), "vivarium-runtime-"));
  readonly gguf = join(this.dir, "nano.gguf");
  #files = 0;

  static async create(): Promise<Bench> {
    const bench = new Bench();
    await convertBase(nano, bench.gguf, { dtype: "f32" });
    return bench;
  }

  file(content: unknown): string {
    const path = join(this.dir, `${this.#files++}.json`);
    writeFileSync(path, JSON.stringify(content));
    return path;
  }

  sampleJob(blocks: TestBlock[], overrides: Partial<SampleJob> = {}): SampleJob {
    return {
      type: "sample",
      base_gguf: this.gguf,
      adapter: null,
      blocks_file: this.file({ blocks }),
      sampler: SAMPLER,
      stop_token_ids: Array.from({ length: 40 }, (_, i) => 300 + 40 * i), // so that lengths vary
      context_tokens: 128,
      num_threads: 1,
      gpu: false,
      ...overrides,
    };
  }

  async run<T extends SampleJob | LogprobsJob>(
    job: T,
    options: Partial<JobOptions> = {},
  ): Promise<JobOutcome<T["type"]>> {
    return runJob(job as never, { ...engineCommand(), ...options }) as Promise<JobOutcome<T["type"]>>;
  }

  /** Responses by block key. */
  async sample(blocks: TestBlock[], overrides: Partial<SampleJob> = {}): Promise<Map<string, Responses>> {
    const responses = new Map<string, Responses>();
    await this.run(this.sampleJob(blocks, overrides), {
      onEvent: (event) => void (event.type === "block" && responses.set(event.key, event.responses)),
    });
    return responses;
  }

  logprobsJob(prompts: number[][], overrides: Partial<LogprobsJob> = {}): LogprobsJob {
    return {
      type: "logprobs",
      base_gguf: this.gguf,
      adapters: [],
      prompts_file: this.file({ prompts }),
      out_dir: join(this.dir, `out-${this.#files++}`),
      kv_type: "F32",
      flash_attention: false,
      num_threads: 1,
      gpu: false,
      ...overrides,
    };
  }

  /** A rank-4 adapter on the middle layer's down projection, with B of this size. */
  async adapter(name: string, b: number): Promise<string> {
    const r = 4;
    const module = `blk.${Math.floor(config.num_hidden_layers / 2)}.ffn_down.weight`;
    const path = join(this.dir, `${name}.gguf`);
    const metadata = new Map([
      ["general.architecture", text(nano.architecture)],
      ["general.type", text("adapter")],
      ["adapter.type", text("lora")],
      ["adapter.lora.alpha", f32(0)],
    ]);
    await writeGguf(path, metadata, [
      matrix(`${module}.lora_a`, [config.intermediate_size, r], (i) => Math.sin(i)),
      matrix(`${module}.lora_b`, [r, config.hidden_size], (i) => b * Math.cos(i)),
    ]);
    return path;
  }

  [Symbol.dispose](): void {
    rmSync(this.dir, { recursive: true, force: true });
  }
}

function matrix(name: string, ne: [number, number], value: (i: number) => number): GgufTensor {
  const values = Float32Array.from({ length: ne[0] * ne[1] }, (_, i) => value(i));
  return { name, type: "F32", ne, chunks: () => [new Uint8Array(values.buffer)] };
}
