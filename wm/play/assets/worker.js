"use strict";
// What the page asks of the worker: begin, step, set, traverse, futures; run and log are for tests and the console.

const FUTURES = 8;
const HORIZON = 30, SHOWN = 3; // steps of a look ahead, and how many lie between two frames of it
const TRAVERSAL = [-3, -2, -1, 0, 1, 2, 3];

/** Named arrays out of the block of bytes that the exporter wrote. */
class Tensors {
  constructor(heap, bytes, index) {
    Object.assign(this, { heap, bytes, index, matrices: {} });
  }

  values(name) {
    const { offset, length, kind } = this.index[name];
    const part = this.bytes.slice(offset, offset + length);
    return kind === "half" ? fromHalf(part) : new Float32Array(part.buffer);
  }

  matrix(name) {
    const { inner, columns } = this.index[name];
    this.matrices[name] ??= packed(this.heap, this.values(name), inner, columns);
    return this.matrices[name];
  }
}

class Player {
  constructor({ spec, weights, wasm, plain }) {
    this.spec = spec;
    const bytes = fromBase64(weights);
    const floats = bytes.length / 2 + Decoder.room(spec.z) + Dreams.room(spec, 1) + Dreams.room(spec, FUTURES);
    this.heap = new Heap(floats, plain || !simd(fromBase64(wasm)) ? null : fromBase64(wasm));
    this.tensors = new Tensors(this.heap, bytes, spec.tensors);
    this.decoder = new Decoder(this.heap, this.tensors);
    this.dream = new Dreams(this.heap, this.tensors, spec, 1);
    this.ahead = new Dreams(this.heap, this.tensors, spec, FUTURES);
    this.mu = this.tensors.values("starts.mu");
    this.sigma = this.tensors.values("starts.sigma");
  }

  /** A dream is its seed: that decides the first frame and all the noise. Tests may give z, noise and what M remembers. */
  begin({ seed, z, h, c, noise, log }) {
    const count = this.spec.starts, size = this.spec.z;
    this.seed = seed;
    this.start = ((seed % count) + count) % count;
    if (!z) {
      const random = new Random(seed, 0, -1);
      z = Float32Array.from({ length: size }, (_, i) => {
        const at = this.start * size + i;
        return this.mu[at] + this.sigma[at] * random.normal();
      });
    }
    Object.assign(this, { steps: 0, total: 0, over: "", given: noise, entries: log ? [] : null });
    this.dream.begin(0, z);
    if (h) this.dream.seenH(0).set(h);
    if (c) this.dream.cell(0).set(c);
    this.dream.reward.fill(0);
    this.dream.logit.fill(-Infinity);
    return this.frame();
  }

  /** One step; `a` is what the person does, C acts without it. */
  step({ a, tau }) {
    if (!this.over) this._advance(a, tau);
    return this.frame();
  }

  _advance(a, tau) {
    const { dream, spec } = this;
    if (a) dream.a(0).set(a);
    else dream.act(0);
    const noise = this._noise();
    dream.advance(noise, tau);
    this.steps += 1;
    this.total += dream.reward[0];
    const { lap, stepPrice, steps } = spec.rules;
    if (dream.ends(0, noise[spec.z])) this.over = "end";
    else if (lap && this.total + stepPrice * this.steps >= lap) this.over = "lap";
    else if (this.steps >= steps) this.over = "limit";
    if (this.entries) {
      const copies = { a: dream.a(0).slice(), z: dream.z(0).slice(), h: dream.h.slice() };
      this.entries.push({ ...copies, reward: dream.reward[0], logit: dream.logit[0] });
    }
  }

  _noise() {
    const width = 2 * this.spec.z + 1, at = this.steps * width;
    if (this.given && at + width <= this.given.length) return this.given.subarray(at, at + width);
    return this._drawn(0, this.steps);
  }

  _drawn(stream, step) {
    const noise = new Float32Array(2 * this.spec.z + 1);
    new Random(this.seed, stream, step).fill(noise, this.spec.z);
    return noise;
  }

  frame() {
    const { dream, steps, total, over, seed, start } = this;
    return {
      pixels: this.decoder.decode(dream.z(0)),
      z: dream.z(0).slice(),
      a: dream.a(0).slice(),
      reward: dream.reward[0],
      chance: this.spec.done ? dream.chance(0) : 0,
      steps, total, over, seed, start,
    };
  }

  /** Turns one number of z by hand. */
  set({ index, value }) {
    this.dream.z(0)[index] = value;
    return this.frame();
  }

  /** What one number of z stands for: the present frame with other values of it. */
  traverse({ index }) {
    const z = this.dream.z(0).slice();
    const frames = TRAVERSAL.map((value) => {
      z[index] = value;
      return this.decoder.decode(z);
    });
    return { values: TRAVERSAL, frames };
  }

  /** Eight samples of the next second, a moment at a time: tell({ step, frames }). The dream itself stays as it is. */
  futures({ a, tau }, tell) {
    const { ahead, spec } = this, width = 2 * spec.z + 1;
    for (let row = 0; row < FUTURES; row++) ahead.copy(row, this.dream, 0);
    const noises = new Float32Array(FUTURES * width), ended = new Array(FUTURES).fill(0);
    for (let step = 1; step <= HORIZON; step++) {
      for (let row = 0; row < FUTURES; row++) {
        if (a) ahead.a(row).set(a);
        else ahead.act(row);
        noises.set(this._drawn(1 + row, this.steps + step), row * width);
      }
      ahead.advance(noises, tau);
      ended.forEach((at, row) => {
        if (!at && ahead.ends(row, noises[row * width + spec.z])) ended[row] = step;
      });
      if (step % SHOWN === 0) {
        const frames = ended.map((at, row) => (at && at < step ? null : this.decoder.decode(ahead.z(row))));
        tell({ step, frames, ended: [...ended] });
      }
    }
    return { horizon: HORIZON };
  }

  /** Many steps at once, with a frame after each `every` of them. */
  run({ steps, tau, every = 0, actions }) {
    const frames = [], size = this.spec.actions, begun = performance.now();
    for (let step = 1; step <= steps; step++) {
      this._advance(actions?.subarray((step - 1) * size, step * size), tau);
      if (every && step % every === 0) frames.push(this.decoder.decode(this.dream.z(0)));
    }
    return { frames, milliseconds: performance.now() - begun };
  }

  log() {
    return { entries: this.entries };
  }
}

function simd(code) {
  return typeof WebAssembly === "object" && WebAssembly.validate(code);
}

function fromBase64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const decoded = atob(text);
  return Uint8Array.from({ length: decoded.length }, (_, i) => decoded.charCodeAt(i));
}

let player;

self.onmessage = ({ data: { id, type, ...about } }) => {
  const answer = (value, more = false) => self.postMessage({ id, more, value });
  try {
    if (type === "load") {
      player = new Player(about);
      answer({ simd: player.heap.multiply !== null });
    } else {
      answer(player[type](about, (part) => answer(part, true)));
    }
  } catch (error) {
    self.postMessage({ id, error: String(error?.stack ?? error) });
  }
};
