/** The dtypes of weights that vivarium reads, under the names that safetensors gives them. */
export type FloatDtype = "F32" | "F16" | "BF16";

export const FLOAT_BYTES: Readonly<Record<FloatDtype, number>> = { F32: 4, F16: 2, BF16: 2 };

export function isFloatDtype(name: string): name is FloatDtype {
  return Object.hasOwn(FLOAT_BYTES, name);
}

/** Float32 values of little-endian bytes; exact, since float32 holds every value of the other two. */
export function toFloat32(bytes: Uint8Array, dtype: FloatDtype): Float32Array<ArrayBuffer> {
  if (dtype === "F32") return new Float32Array(aligned(bytes));
  const halves = new Uint16Array(aligned(bytes));
  const out = new Float32Array(halves.length);
  if (dtype === "BF16") {
    const bits = new Uint32Array(out.buffer);
    for (let i = 0; i < halves.length; i++) bits[i] = (halves[i] as number) << 16;
  } else {
    for (let i = 0; i < halves.length; i++) out[i] = halfToFloat(halves[i] as number);
  }
  return out;
}

/** Little-endian bytes of float32 values, rounded to nearest, ties to even; too large for F16 becomes infinity. */
export function fromFloat32(values: Float32Array, dtype: FloatDtype): Uint8Array {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  if (dtype === "F32") return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  const round = dtype === "BF16" ? bfloatBits : halfBits;
  const out = new Uint16Array(bits.length);
  for (let i = 0; i < bits.length; i++) out[i] = round(bits[i] as number);
  return new Uint8Array(out.buffer);
}

/** A copy that starts at a multiple of the element size, which slices of a file need not. */
function aligned(bytes: Uint8Array): ArrayBuffer {
  return new Uint8Array(bytes).buffer;
}

function halfToFloat(half: number): number {
  const sign = half & 0x8000 ? -1 : 1;
  const exponent = (half >> 10) & 31;
  const fraction = half & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** Bits of the bfloat16 nearest to a float32 given by its bits. NaN stays NaN: plain rounding could carry it to -0. */
function bfloatBits(bits: number): number {
  if ((bits & 0x7fffffff) > 0x7f800000) return (bits >>> 16) | 0x40;
  return (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16;
}

/** Bits of the IEEE half nearest to a float32 given by its bits. */
function halfBits(bits: number): number {
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  const exponent = (magnitude >>> 23) - 112;
  if (exponent >= 31) return sign | 0x7c00;
  if (exponent > 0) return sign | roundShift(((exponent << 23) >>> 0) | (magnitude & 0x7fffff), 13);
  if (exponent < -10) return sign;
  return sign | roundShift((magnitude & 0x7fffff) | 0x800000, 14 - exponent);
}

/** `value / 2^shift`, rounded to nearest, ties to even. A carry out of the fraction rightly raises the exponent. */
function roundShift(value: number, shift: number): number {
  const floor = value >>> shift;
  const rest = value & ((1 << shift) - 1);
  const half = 1 << (shift - 1);
  return rest > half || (rest === half && (floor & 1) === 1) ? floor + 1 : floor;
}
