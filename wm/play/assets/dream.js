"use strict";
// M as the game and C as its player: the same arithmetic as wm's own dream, for one dream or several side by side.

const LOGSIGMA = [-7, 5];
const THIRD = 1 / 3;

const sigmoid = (x) => 1 / (1 + Math.exp(-x));

/** C's unbounded output to actions: what each kind of game makes of it. */
const SQUASH = {
  car: (raw, { gas, brake }) => {
    const [steer, pedal, other] = raw.map(Math.tanh);
    if (raw.length === 3) return [steer, (pedal + 1) / 2, Math.max(other, 0)];
    return [steer, gas * Math.max(pedal, 0), brake * Math.max(-pedal, 0)];
  },
  thirds: (raw) => raw.map(Math.tanh).map((x) => (x > THIRD) - (x < -THIRD)),
  choice: (raw) => {
    const best = raw.indexOf(Math.max(...raw));
    return raw.map((_, i) => Number(i === best));
  },
  box: (raw, { low, high }) => raw.map((x, i) => low[i] + (Math.tanh(x) + 1) / 2 * (high[i] - low[i])),
};

class Dreams {
  constructor(heap, tensors, spec, rows) {
    Object.assign(this, { heap, spec, rows });
    const { z, actions, hidden } = spec;
    this.inputs = actions + z + hidden;
    this.gates = tensors.matrix("memory.gates");
    this.gatesBias = tensors.values("memory.gates.bias");
    this.heads = tensors.matrix("memory.heads");
    this.headsBias = tensors.values("memory.heads.bias");
    this.theta = tensors.values("theta");
    this.x = heap.take(rows * this.inputs); // each row: a, z, h
    this.c = new Float32Array(rows * hidden);
    this.h = heap.take(rows * hidden);
    this.gatesOut = heap.take(rows * this.gates.width);
    this.headsOut = heap.take(rows * this.heads.width);
    this.reward = new Float32Array(rows);
    this.logit = new Float32Array(rows);
  }

  static room({ z, actions, hidden, mixtures }, rows) {
    return rows * (actions + z + 6 * hidden + 3 * mixtures * z + 128) + 64;
  }

  /** Views of one row. */
  a(row) { return this._view(row, 0, this.spec.actions); }
  z(row) { return this._view(row, this.spec.actions, this.spec.z); }
  seenH(row) { return this._view(row, this.spec.actions + this.spec.z, this.spec.hidden); }
  cell(row) { return this.c.subarray(row * this.spec.hidden, (row + 1) * this.spec.hidden); }

  /** From a first frame, with nothing remembered. */
  begin(row, z) {
    this.x.fill(0, row * this.inputs, (row + 1) * this.inputs);
    this.cell(row).fill(0);
    this.z(row).set(z);
  }

  copy(row, other, otherRow) {
    this.x.set(other.x.subarray(otherRow * this.inputs, (otherRow + 1) * this.inputs), row * this.inputs);
    this.cell(row).set(other.cell(otherRow));
  }

  /** What C does now, in `a`. */
  act(row) {
    const { inputs, outputs, layer, bias, squash } = this.spec.controller;
    const parts = [this.z(row), this.seenH(row), this.cell(row)].slice(0, inputs.length);
    const sizes = layer ? [layer, outputs] : [outputs];
    let values = parts.flatMap((part) => [...part]), at = 0;
    sizes.forEach((size, index) => {
      const next = new Array(size).fill(0);
      for (let j = 0; j < size; j++) for (const value of values) next[j] += this.theta[at++] * value;
      if (bias) for (let j = 0; j < size; j++) next[j] += this.theta[at++];
      values = index === sizes.length - 1 ? next : next.map(Math.tanh);
    });
    this.a(row).set(SQUASH[squash.kind](values, squash));
  }

  /** From z, a, h and c to what comes next; noises has one row's noise after the other. */
  advance(noises, tau) {
    const { hidden, z, actions, reward, done } = this.spec;
    const { gatesOut, headsOut, heads, gates, h, c, x } = this;
    for (let row = 0; row < this.rows; row++) {
      gatesOut.set(this.gatesBias, row * gates.width);
      headsOut.set(this.headsBias, row * heads.width);
    }
    this.heap.product(x, gates, gatesOut, this.rows);
    for (let row = 0; row < this.rows; row++) {
      const g = row * gates.width, state = row * hidden;
      for (let j = 0; j < hidden; j++) {
        const input = sigmoid(gatesOut[g + j]), forget = sigmoid(gatesOut[g + hidden + j]);
        const cell = Math.tanh(gatesOut[g + 2 * hidden + j]), output = sigmoid(gatesOut[g + 3 * hidden + j]);
        c[state + j] = forget * c[state + j] + input * cell;
        h[state + j] = output * Math.tanh(c[state + j]);
      }
      x.set(h.subarray(state, state + hidden), row * this.inputs + actions + z);
    }
    this.heap.product(h, heads, headsOut, this.rows);
    const width = 2 * z + 1;
    for (let row = 0; row < this.rows; row++) {
      const out = headsOut.subarray(row * heads.width, row * heads.width + heads.columns);
      this._choose(out, noises.subarray(row * width, (row + 1) * width), tau, this.z(row));
      const rest = 3 * this.spec.mixtures * z;
      this.reward[row] = this.spec.rules.reward === "head" ? out[rest] : 1;
      this.logit[row] = done ? out[rest + reward] : -Infinity;
    }
  }

  /** The chance that M gives an end; its training may have weighted ends by `done_weight`, which is taken back. */
  chance(row) {
    return sigmoid(this.logit[row] - Math.log(this.spec.rules.doneWeight));
  }

  /** Whether row's dream ends with this step. */
  ends(row, uniform) {
    const rule = this.spec.rules.done;
    return rule === "threshold" ? this.logit[row] > 0 : rule === "sample" && uniform < this.chance(row);
  }

  /** The next z: choose a component for each number with logits divided by tau, then deviate from its mean. */
  _choose(out, noise, tau, goal) {
    const { z, mixtures } = this.spec, deviation = Math.sqrt(tau), sums = new Float32Array(mixtures);
    for (let i = 0; i < z; i++) {
      let top = -Infinity, sum = 0, chosen = 0;
      for (let k = 0; k < mixtures; k++) top = Math.max(top, out[k * z + i]);
      for (let k = 0; k < mixtures; k++) {
        sum = Math.fround(sum + Math.fround(Math.exp((out[k * z + i] - top) / tau)));
        sums[k] = sum;
      }
      const limit = Math.fround(noise[i] * sum);
      while (chosen < mixtures - 1 && sums[chosen] <= limit) chosen++;
      const mu = out[(mixtures + chosen) * z + i], logsigma = out[(2 * mixtures + chosen) * z + i];
      const sigma = Math.exp(Math.min(Math.max(logsigma, LOGSIGMA[0]), LOGSIGMA[1]));
      goal[i] = mu + sigma * deviation * noise[z + 1 + i];
    }
  }

  _view(row, from, size) {
    const at = row * this.inputs + from;
    return this.x.subarray(at, at + size);
  }
}
