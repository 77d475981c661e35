"use strict";
// Seeded noise: a function of (seed, stream, step) alone, so that a look at other futures leaves a dream as it is.

/** The generator sfc32: passes PractRand, 128 bits of state, a few integer operations a number. */
class Random {
  constructor(seed, stream, step) {
    this.a = seed | 0;
    this.b = stream | 0;
    this.c = step | 0;
    this.d = 1;
    for (let i = 0; i < 15; i++) this.bits();
  }

  bits() {
    const t = (((this.a + this.b) | 0) + this.d) | 0;
    this.d = (this.d + 1) | 0;
    this.a = this.b ^ (this.b >>> 9);
    this.b = (this.c + (this.c << 3)) | 0;
    this.c = (this.c << 21) | (this.c >>> 11);
    this.c = (this.c + t) | 0;
    return t >>> 0;
  }

  /** On [0, 1), with 24 bits: exact as a 32-bit float. */
  uniform() {
    return (this.bits() >>> 8) * 2 ** -24;
  }

  /** Standard normal (Box and Muller). */
  normal() {
    const radius = Math.sqrt(-2 * Math.log(1 - this.uniform()));
    return radius * Math.cos(2 * Math.PI * this.uniform());
  }

  /** Fills one step's noise as wm's dream takes it: which component (Z), whether it ends (1), the deviation (Z). */
  fill(noise, z) {
    for (let i = 0; i <= z; i++) noise[i] = this.uniform();
    for (let i = z + 1; i <= 2 * z; i++) noise[i] = this.normal();
  }
}
