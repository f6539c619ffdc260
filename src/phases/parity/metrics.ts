import { type FileHandle, open, stat } from "node:fs/promises";
import { DriverError } from "../../errors.ts";

/** float32 files [n_positions, vocab_size], row-major, natural-log probabilities; as both engines write them. */
export interface LogprobFiles {
  peft_base: string;
  peft_adapter: string;
  llama_base: string;
  llama_adapter: string;
  vocab_size: number;
}

/**
 * How far llama.cpp's adapter is from PEFT's. All distances are over log-probabilities, in nats; d is what the adapter
 * does: log-probabilities with it minus those of the same engine's own base. RMS and maxima run over all positions
 * and the whole vocabulary; KL is KL(PEFT || llama.cpp) a position.
 */
export interface ParityMetrics {
  n_positions: number;
  base_kl_mean: number;
  base_max_abs: number;
  /** RMS of llama.cpp's base against PEFT's: the noise of the two engines. */
  base_rms: number;
  kl_mean: number;
  kl_max: number;
  max_abs: number;
  /** Share of positions whose most likely token is the same, with the adapter. */
  top1_agreement: number;
  /** KL(PEFT with adapter || PEFT base): how much the adapter does at all. */
  effect_kl_mean: number;
  /** RMS of d, PEFT. */
  effect_rms: number;
  /** RMS of d, llama.cpp. */
  llama_effect_rms: number;
  /** ||d_llama - d_peft|| / ||d_peft||. This and the next two are absent when PEFT's effect is exactly zero. */
  rel?: number;
  /** ||d_llama|| / ||d_peft||. */
  norm_ratio?: number;
  /** Of the angle between d_llama and d_peft; absent also when llama.cpp's effect is exactly zero. */
  cosine?: number;
}

const SIDES = ["peft_base", "peft_adapter", "llama_base", "llama_adapter"] as const;
type Rows<T> = Record<(typeof SIDES)[number], T>;

const FLOAT_BYTES = 4;
/** Bytes read from each file at once. */
const CHUNK_BYTES = 4 << 20;
/** A row whose probabilities sum further from 1 than this, in nats, holds something else than log-probabilities. */
const NORMALIZATION_TOLERANCE = 1e-3;

/**
 * Compares the four files in constant memory.
 *
 * Rows are normalised again in float64: rounding to float32 moves log-probabilities by up to 1e-6, which enters a KL
 * divergence linearly and would drown the differences of 1e-12 that are to be seen.
 *
 * @throws {DriverError} `NOT_FOUND` or `PHASE_FAILED` when a file is missing, short, of another shape, or holds a value
 *   that is not finite or rows that are no distributions: a comparison with a hole in it proves nothing.
 */
export async function compareLogprobs(files: LogprobFiles): Promise<ParityMetrics> {
  const positions = await countPositions(files);
  const sums = newSums(files.vocab_size);
  const rowsPerChunk = Math.max(1, Math.floor(CHUNK_BYTES / (files.vocab_size * FLOAT_BYTES)));
  await using handles = await openAll(files);
  for (let start = 0; start < positions; start += rowsPerChunk) {
    const n = Math.min(rowsPerChunk, positions - start);
    const chunk = {} as Rows<Float32Array>;
    for (const side of SIDES) chunk[side] = await readRows(handles.files[side], files, side, start, n);
    for (let row = 0; row < n; row++) {
      for (const side of SIDES)
        normalizeRow(chunk[side], row, sums.rows[side], () => `${files[side]}, row ${start + row}`);
      addRow(sums);
    }
  }
  return summarize(sums, positions);
}

async function countPositions(files: LogprobFiles): Promise<number> {
  const sizes = await Promise.all(SIDES.map((side) => sizeOf(files[side])));
  const [bytes = 0] = sizes;
  const rowBytes = files.vocab_size * FLOAT_BYTES;
  if (bytes === 0 || bytes % rowBytes !== 0 || sizes.some((size) => size !== bytes)) {
    const found = SIDES.map((side, index) => `${files[side]} ${sizes[index]} bytes`).join(", ");
    throw new DriverError(
      "PHASE_FAILED",
      `Log-probabilities of different shapes: expected four files of whole rows of ${rowBytes} bytes, got ${found}`,
    );
  }
  return bytes / rowBytes;
}

async function sizeOf(path: string): Promise<number> {
  const info = await stat(path).catch((cause) => {
    throw new DriverError("NOT_FOUND", `No log-probabilities at ${path}`, { cause });
  });
  return info.size;
}

async function openAll(files: LogprobFiles): Promise<AsyncDisposable & { files: Rows<FileHandle> }> {
  const opened: FileHandle[] = [];
  const close = async () => {
    await Promise.all(opened.map((handle) => handle.close()));
  };
  try {
    const handles = {} as Rows<FileHandle>;
    for (const side of SIDES) {
      handles[side] = await open(files[side], "r");
      opened.push(handles[side]);
    }
    return { files: handles, [Symbol.asyncDispose]: close };
  } catch (error) {
    await close();
    throw error;
  }
}

async function readRows(
  handle: FileHandle,
  files: LogprobFiles,
  side: keyof Rows<unknown>,
  start: number,
  n: number,
): Promise<Float32Array> {
  const rowBytes = files.vocab_size * FLOAT_BYTES;
  const values = new Float32Array(n * files.vocab_size);
  const bytes = Buffer.from(values.buffer);
  for (let done = 0; done < bytes.length; ) {
    const { bytesRead } = await handle.read(bytes, done, bytes.length - done, start * rowBytes + done);
    if (bytesRead === 0) throw new DriverError("PHASE_FAILED", `${files[side]} became shorter while it was read`);
    done += bytesRead;
  }
  return values;
}

/** Writes row `row` of `chunk`, normalised, to `target`. */
function normalizeRow(chunk: Float32Array, row: number, target: Float64Array, where: () => string): void {
  const offset = row * target.length;
  let mass = 0;
  for (let i = 0; i < target.length; i++) {
    const value = chunk[offset + i] as number;
    target[i] = value;
    mass += Math.exp(value);
    if (!Number.isFinite(value)) throw new DriverError("PHASE_FAILED", `${where()}: log-probability ${i} is ${value}`);
  }
  const excess = Math.log(mass);
  if (!(Math.abs(excess) <= NORMALIZATION_TOLERANCE))
    throw new DriverError("PHASE_FAILED", `${where()}: probabilities sum to ${mass}, expected 1`);
  for (let i = 0; i < target.length; i++) target[i] = (target[i] as number) - excess;
}

interface Sums {
  rows: Rows<Float64Array>;
  base_kl: number;
  base_max: number;
  base_square: number;
  kl: number;
  kl_max: number;
  max: number;
  top1: number;
  effect_kl: number;
  peft_square: number;
  llama_square: number;
  dot: number;
  residual_square: number;
}

function newSums(vocabSize: number): Sums {
  const rows = Object.fromEntries(SIDES.map((side) => [side, new Float64Array(vocabSize)])) as Rows<Float64Array>;
  return {
    rows,
    base_kl: 0,
    base_max: 0,
    base_square: 0,
    kl: 0,
    kl_max: 0,
    max: 0,
    top1: 0,
    effect_kl: 0,
    peft_square: 0,
    llama_square: 0,
    dot: 0,
    residual_square: 0,
  };
}

/** Adds the position that lies in `sums.rows`. One loop, because a vocabulary has 150,000 entries. */
function addRow(sums: Sums): void {
  const { peft_base, peft_adapter, llama_base, llama_adapter } = sums.rows;
  let kl = 0;
  let peftTop = 0;
  let llamaTop = 0;
  for (let i = 0; i < peft_base.length; i++) {
    const peftBase = peft_base[i] as number;
    const peft = peft_adapter[i] as number;
    const llama = llama_adapter[i] as number;
    const baseGap = (llama_base[i] as number) - peftBase;
    const gap = llama - peft;
    const peftEffect = peft - peftBase;
    const llamaEffect = llama - (llama_base[i] as number);
    const probability = Math.exp(peft);
    sums.base_kl -= Math.exp(peftBase) * baseGap;
    sums.base_square += baseGap ** 2;
    sums.base_max = Math.max(sums.base_max, Math.abs(baseGap));
    kl -= probability * gap;
    sums.max = Math.max(sums.max, Math.abs(gap));
    sums.effect_kl += probability * peftEffect;
    sums.peft_square += peftEffect ** 2;
    sums.llama_square += llamaEffect ** 2;
    sums.dot += peftEffect * llamaEffect;
    sums.residual_square += (llamaEffect - peftEffect) ** 2;
    if (peft > (peft_adapter[peftTop] as number)) peftTop = i;
    if (llama > (llama_adapter[llamaTop] as number)) llamaTop = i;
  }
  sums.kl += kl;
  sums.kl_max = Math.max(sums.kl_max, kl);
  if (peftTop === llamaTop) sums.top1 += 1;
}

/** A KL divergence is not negative; float64 sums of terms of both signs can be, by 1e-17. */
function summarize(sums: Sums, positions: number): ParityMetrics {
  const entries = positions * sums.rows.peft_base.length;
  const peftNorm = Math.sqrt(sums.peft_square);
  const llamaNorm = Math.sqrt(sums.llama_square);
  return {
    n_positions: positions,
    base_kl_mean: Math.max(0, sums.base_kl / positions),
    base_max_abs: sums.base_max,
    base_rms: Math.sqrt(sums.base_square / entries),
    kl_mean: Math.max(0, sums.kl / positions),
    kl_max: sums.kl_max,
    max_abs: sums.max,
    top1_agreement: sums.top1 / positions,
    effect_kl_mean: Math.max(0, sums.effect_kl / positions),
    effect_rms: peftNorm / Math.sqrt(entries),
    llama_effect_rms: llamaNorm / Math.sqrt(entries),
    ...(peftNorm > 0 ? { rel: Math.sqrt(sums.residual_square) / peftNorm, norm_ratio: llamaNorm / peftNorm } : {}),
    ...(peftNorm > 0 && llamaNorm > 0 ? { cosine: sums.dot / (peftNorm * llamaNorm) } : {}),
  };
}
