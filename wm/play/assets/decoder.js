"use strict";
// V's decoder: z to a frame of 64 x 64 pixels.

const STAGES = [ // transposed convolutions with stride 2; side and channels of what goes in
  { side: 5, channels: 128, kernel: 5, out: 64 },
  { side: 13, channels: 64, kernel: 6, out: 32 },
  { side: 30, channels: 32, kernel: 6, out: 3 },
];
const SIDE = 64;

class Decoder {
  constructor(heap, tensors) {
    this.heap = heap;
    this.first = tensors.matrix("decoder.first"); // two linear layers in one: z to 5 x 5 x 128
    this.firstBias = tensors.values("decoder.first.bias");
    this.z = heap.take(this.first.inner);
    this.input = heap.take(this.first.width);
    this.stages = STAGES.map((stage, index) => {
      const matrix = tensors.matrix(`decoder.${index}`);
      const side = 2 * (stage.side - 1) + stage.kernel;
      return {
        ...stage,
        matrix,
        bias: tensors.values(`decoder.${index}.bias`),
        goal: side,
        spread: heap.take(stage.side ** 2 * matrix.width),
        output: heap.take(side * side * stage.out),
      };
    });
  }

  /** How many floats all this takes, weights aside. */
  static room(z) {
    return z + 3200 + 25 * 1600 + 169 * 64 + 169 * 1152 + 900 * 32 + 900 * 112 + SIDE * SIDE * 3 + 1024;
  }

  /** RGBA bytes, (64, 64, 4); `precise`, where given, takes the numbers before they are rounded, (64, 64, 3). */
  decode(z, precise) {
    this.z.set(z);
    this.input.set(this.firstBias);
    this.heap.product(this.z, this.first, this.input, 1);
    rectify(this.input);
    let input = this.input;
    for (const stage of this.stages) {
      stage.spread.fill(0);
      this.heap.product(input, stage.matrix, stage.spread, stage.side ** 2);
      gather(stage);
      input = stage.output;
      if (stage.out > 3) rectify(input);
    }
    const pixels = new Uint8ClampedArray(SIDE * SIDE * 4).fill(255);
    for (let from = 0, to = 0; from < input.length; to++) {
      for (let channel = 0; channel < 3; channel++, from++, to++) {
        const value = 255 / (1 + Math.exp(-input[from]));
        pixels[to] = value;
        if (precise) precise[from] = value;
      }
    }
    return pixels;
  }
}

/** Adds up what each input pixel spreads over kernel x kernel outputs; a row of the kernel is contiguous in both. */
function gather({ side, kernel, out, matrix, spread, output, bias, goal }) {
  for (let at = 0; at < output.length; at += out) output.set(bias, at);
  const run = kernel * out;
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) {
      let from = (y * side + x) * matrix.width;
      for (let ky = 0; ky < kernel; ky++) {
        let to = ((2 * y + ky) * goal + 2 * x) * out;
        for (const end = to + run; to < end; ) output[to++] += spread[from++];
      }
    }
  }
}

function rectify(values) {
  for (let i = 0; i < values.length; i++) if (values[i] < 0) values[i] = 0;
}
