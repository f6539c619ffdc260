/** Numbers of GGUF version 3. Source: llama.cpp `ggml/include/gguf.h` and `ggml/include/ggml.h` `enum ggml_type`. */
export const MAGIC = "GGUF";
export const VERSION = 3;
/** Every tensor starts at a multiple of this, counted from the start of the data. Source: `GGUF_DEFAULT_ALIGNMENT`. */
export const ALIGNMENT_BYTES = 32;

export const VALUE_TYPES = {
  u8: 0,
  i8: 1,
  u16: 2,
  i16: 3,
  u32: 4,
  i32: 5,
  f32: 6,
  bool: 7,
  string: 8,
  array: 9,
  u64: 10,
  i64: 11,
  f64: 12,
} as const;
export type ValueType = keyof typeof VALUE_TYPES;
export type NumberType = Exclude<ValueType, "bool" | "string" | "array">;

/** Bytes of one value; strings and arrays have no fixed size. */
export const VALUE_BYTES: Readonly<Record<NumberType | "bool", number>> = {
  ...{ u8: 1, i8: 1, bool: 1, u16: 2, i16: 2, u32: 4, i32: 4, f32: 4, u64: 8, i64: 8, f64: 8 },
};

/** A metadata value. 64-bit integers are numbers: none that a model needs is beyond 2^53, and the reader refuses such. */
export type GgufValue =
  | { type: NumberType; value: number }
  | { type: "bool"; value: boolean }
  | { type: "string"; value: string }
  | { type: "array"; of: "string"; value: readonly string[] }
  | { type: "array"; of: "bool"; value: readonly boolean[] }
  | { type: "array"; of: NumberType; value: readonly number[] };

/** Tensor types by name: number, elements of a block, bytes of a block. */
export const TENSOR_TYPES = {
  F32: { id: 0, block: 1, block_bytes: 4 },
  F16: { id: 1, block: 1, block_bytes: 2 },
  Q8_0: { id: 8, block: 32, block_bytes: 34 },
  BF16: { id: 30, block: 1, block_bytes: 2 },
} as const;
export type TensorType = keyof typeof TENSOR_TYPES;

export const alignUp = (bytes: number): number => Math.ceil(bytes / ALIGNMENT_BYTES) * ALIGNMENT_BYTES;

/** Bytes of a tensor; `ne` is ggml's shape: the reverse of torch's, so that `ne[0]` is contiguous. */
export function tensorBytes(type: TensorType, ne: readonly number[]): number {
  const { block, block_bytes } = TENSOR_TYPES[type];
  return (ne.reduce((product, n) => product * n, 1) / block) * block_bytes;
}
