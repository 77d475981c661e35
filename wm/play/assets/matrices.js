"use strict";
// Matrix products on one heap of 32-bit floats: in WebAssembly with SIMD, or in plain typed arrays where there is none.

const PANEL = 16; // columns of a packed matrix that lie side by side
const PAGE = 65536; // bytes in a page of WebAssembly's memory

/** Room for `floats` numbers, handed out once and never returned. */
class Heap {
  constructor(floats, code) {
    const bytes = 4 * floats + PAGE;
    this.used = 64; // bytes
    this.multiply = null;
    if (code) {
      const memory = new WebAssembly.Memory({ initial: Math.ceil(bytes / PAGE) });
      const instance = new WebAssembly.Instance(new WebAssembly.Module(code), { env: { memory } });
      this.multiply = instance.exports.multiply;
      this.buffer = memory.buffer;
    } else {
      this.buffer = new ArrayBuffer(bytes);
    }
    this.floats = new Float32Array(this.buffer);
  }

  /** `count` zeros; every array begins at a multiple of 16 bytes. */
  take(count) {
    const array = new Float32Array(this.buffer, this.used, count);
    this.used += 16 * Math.ceil(count / 4);
    return array;
  }

  /** out += x W for `rows` rows; W is packed, and a row of out has as many numbers as W has columns, padding included. */
  product(x, W, out, rows) {
    if (this.multiply) {
      this.multiply(x.byteOffset, W.data.byteOffset, out.byteOffset, rows, W.inner, W.panels, 4 * PANEL * W.panels);
    } else {
      multiplyPlain(x, W.data, out, rows, W.inner, W.panels);
    }
  }
}

/** A matrix (inner, columns) in panels of 16 columns, as the exporter has packed it. */
function packed(heap, values, inner, columns) {
  const panels = Math.ceil(columns / PANEL);
  const data = heap.take(values.length);
  data.set(values);
  return { data, inner, columns, panels, width: PANEL * panels };
}

/** The same product without WebAssembly: four columns at a time stay in registers. */
function multiplyPlain(x, w, out, rows, inner, panels) {
  const stride = PANEL * panels;
  for (let panel = 0; panel < panels; panel++) {
    for (let row = 0; row < rows; row++) {
      for (let part = 0; part < PANEL; part += 4) {
        const goal = row * stride + panel * PANEL + part;
        let s0 = out[goal], s1 = out[goal + 1], s2 = out[goal + 2], s3 = out[goal + 3];
        let from = panel * inner * PANEL + part;
        for (let at = row * inner, end = at + inner; at < end; at++, from += PANEL) {
          const value = x[at];
          s0 += value * w[from];
          s1 += value * w[from + 1];
          s2 += value * w[from + 2];
          s3 += value * w[from + 3];
        }
        out[goal] = s0;
        out[goal + 1] = s1;
        out[goal + 2] = s2;
        out[goal + 3] = s3;
      }
    }
  }
}

/** 16-bit floats, as bytes, to 32-bit ones. */
function fromHalf(bytes) {
  const halves = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 2);
  const bits = new Uint32Array(halves.length), floats = new Float32Array(bits.buffer);
  for (let i = 0; i < halves.length; i++) {
    const half = halves[i], exponent = half & 0x7c00, sign = (half & 0x8000) << 16;
    if (exponent === 0) {
      floats[i] = (half & 0x3ff) * 2 ** -24;
      bits[i] |= sign;
    } else {
      bits[i] = sign | ((half & 0x7fff) << 13) + 0x38000000;
    }
  }
  return floats;
}
