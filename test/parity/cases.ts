import { execFileSync } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { bridgeCommand, ensureBridge } from "../../src/bridge/environment.ts";
import { runJob } from "../../src/bridge/session.ts";
import { convertAdapter, readAdapterGguf } from "../../src/formats/gguf/adapter.ts";
import { convertBase } from "../../src/formats/gguf/base.ts";
import { openModelDir } from "../../src/formats/model-dir.ts";
import { openSafetensors, readTensorF32, type TensorData, writeSafetensors } from "../../src/formats/safetensors.ts";
import type { LogprobsResult, ScoreResult } from "../../src/protocol/wire.ts";
import { engineCommand } from "../../src/runtime/command.ts";

export const BASES = ["qwen3", "qwen2"] as const;
export type BaseName = (typeof BASES)[number];

/** Random bases and adapters made by `make_cases.py` with the bridge's own Python, and both engines' words on them. */
export class Cases implements Disposable {
  readonly dir: string;
  readonly python: string;
  readonly adapters: string[];

  private constructor(dir: string, python: string) {
    this.dir = dir;
    this.python = python;
    this.adapters = JSON.parse(readFileSync(join(dir, "cases.json"), "utf8")).adapters;
  }

  static async create(): Promise<Cases> {
    const home = process.env.VIVARIUM_HOME || join(homedir(), ".cache", "vivarium");
    const { python } = await ensureBridge({ home, on_line: (line) => void process.stderr.write(`${line}\n`) });
    const dir = mkdtempSync(join(tmpdir(), "vivarium-parity-"));
    const script = fileURLToPath(new URL("make_cases.py", import.meta.url));
    execFileSync(python, [script, dir], { env: { ...process.env, ...bridgeCommand(python).env }, stdio: "pipe" });
    return new Cases(dir, python);
  }

  baseDir(base: BaseName): string {
    return join(this.dir, "bases", base);
  }

  adapterDir(base: BaseName, adapter: string): string {
    return join(this.dir, "adapters", base, adapter);
  }

  gguf(base: BaseName, adapter: string): string {
    return join(this.dir, `${base}--${adapter}.gguf`);
  }

  async convert(base: BaseName, adapter: string, dir = this.adapterDir(base, adapter)): Promise<void> {
    await convertAdapter(dir, this.gguf(base, adapter), { architecture: base });
  }

  /** A copy of an adapter's folder under another name, changed. */
  changed(base: BaseName, adapter: string, name: string, change: (dir: string) => void): string {
    const dir = join(this.dir, "changed", base, name);
    cpSync(this.adapterDir(base, adapter), dir, { recursive: true });
    change(dir);
    return dir;
  }

  /** Conversations too, so that the template of the base's folder is rendered by Python. */
  async peft(base: BaseName, adapters: string[], conversations: unknown[]): Promise<ScoreResult> {
    const conversations_file = join(this.dir, "conversations.json");
    writeFileSync(conversations_file, JSON.stringify({ conversations, chat_template_kwargs: {} }));
    const { result } = await runJob(
      {
        type: "score",
        base_model_dir: this.baseDir(base),
        n_layers: null,
        adapters: adapters.map((id) => ({ id, dir: this.adapterDir(base, id) })),
        prompts_file: join(this.dir, "prompts.json"),
        conversations_file,
        out_dir: join(this.dir, "peft", base),
        num_threads: 1,
      },
      bridgeCommand(this.python),
    );
    return result;
  }

  async llama(base: BaseName, adapters: string[], dtype: "f32" | "bf16"): Promise<LogprobsResult> {
    const base_gguf = join(this.dir, `${base}-${dtype}.gguf`);
    await convertBase(openModelDir(this.baseDir(base)), base_gguf, { dtype });
    const strict = dtype === "f32";
    const { result } = await runJob(
      {
        type: "logprobs",
        base_gguf,
        adapters: adapters.map((id) => ({ id, gguf: this.gguf(base, id) })),
        prompts_file: join(this.dir, "prompts.json"),
        out_dir: join(this.dir, `llama-${dtype}`, base),
        kv_type: strict ? "F32" : "F16",
        flash_attention: !strict,
        num_threads: 1,
        gpu: false,
      },
      engineCommand(),
    );
    return result;
  }

  bIsZero(base: BaseName, adapter: string): boolean {
    const { modules } = readAdapterGguf(this.gguf(base, adapter));
    return [...modules.values()].every(({ b }) => b.data.every((value) => value === 0));
  }

  [Symbol.dispose](): void {
    rmSync(this.dir, { recursive: true, force: true });
  }
}

/** Changes keys of `adapter_config.json`. */
export function editConfig(dir: string, changes: Record<string, unknown>): void {
  const path = join(dir, "adapter_config.json");
  writeFileSync(path, JSON.stringify({ ...JSON.parse(readFileSync(path, "utf8")), ...changes }));
}

/** Rewrites every tensor of the adapter. */
export function editTensors(
  dir: string,
  edit: (name: string, shape: readonly number[], values: Float32Array) => [name: string, shape: number[], Float32Array],
): void {
  const path = join(dir, "adapter_model.safetensors");
  const edited = [...openSafetensors(path).tensors.values()].map((tensor): [string, TensorData] => {
    const [name, shape, values] = edit(tensor.name, tensor.shape, readTensorF32(path, tensor));
    return [name, { dtype: "F32", shape, data: new Uint8Array(values.buffer, values.byteOffset, values.byteLength) }];
  });
  writeSafetensors(path, Object.fromEntries(edited));
}

/** The transpose of a row-major matrix. */
export function transposed(shape: readonly number[], values: Float32Array): Float32Array {
  const [rows = 0, columns = 0] = shape;
  return values.map((_, i) => values[(i % rows) * columns + Math.floor(i / rows)] as number);
}
