"use strict";
// What stands around the picture: bars of the action, the curve of what M expects, the numbers of z, small pictures.

const COLOURS = {};
const SHOWN_STEPS = 180; // of the curve: six seconds
const REACH = 3; // of a number of z; V keeps them near a standard normal

/** The palette as it is now, light or dark. */
function readColours() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["ink", "faint", "line", "wash", "one", "two", "paper", "other"]) {
    COLOURS[name] = style.getPropertyValue(`--${name}`).trim();
  }
}

/** A canvas as sharp as the screen; returns its context in CSS pixels. */
function sharp(canvas) {
  const ratio = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

function paint(canvas, pixels) {
  canvas.getContext("2d").putImageData(new ImageData(pixels, 64, 64), 0, 0);
}

class Actions {
  constructor(numbers, panel) {
    Object.assign(this, { numbers, panel });
    this.rows = numbers.map(({ name, low, high }) => {
      const zero = Math.min(Math.max(-low / (high - low), 0), 1), bar = element("span", "", { class: "bar" });
      bar.style.cssText = `--zero:${100 * zero}%;--tick:${zero > 0 && zero < 1 ? 0.6 : 0}`;
      const fill = bar.appendChild(element("i")), value = element("span", "0");
      panel.append(element("span", name), bar, value);
      return { fill, value, range: Math.max(high, -low) === 0 ? 1 : high - low };
    });
  }

  show(a, you) {
    this.panel.classList.toggle("you", you);
    this.rows.forEach(({ fill, value, range }, i) => {
      fill.style.transform = `scaleX(${a[i] / range})`;
      const text = a[i].toFixed(2).replace("-", "−");
      if (value.textContent !== text) value.textContent = text;
    });
  }
}

/** The last steps of what M expects. */
class Curve {
  /** `limit` is the chance at which a dream ends, if it ends at one. */
  constructor(canvas, chance, limit) {
    Object.assign(this, { canvas, chance, limit, values: [] });
  }

  clear() {
    this.values = [];
  }

  add(value, you) {
    this.values.push({ value, you });
    if (this.values.length > SHOWN_STEPS) this.values.shift();
  }

  draw() {
    const { context, width, height } = sharp(this.canvas), values = this.values;
    const low = this.chance ? 0 : Math.min(0, ...values.map((one) => one.value));
    const sorted = values.map((one) => one.value).sort((a, b) => a - b); // a few peaks may leave the picture
    const high = Math.max(this.chance ? 0.1 : 1, 1.4 * (sorted[Math.floor(0.95 * sorted.length)] ?? 0));
    const x = (i) => width - (values.length - 1 - i) * (width / SHOWN_STEPS) - 2;
    const y = (value) => height - 3 - (value - low) / (high - low) * (height - 8);
    context.strokeStyle = COLOURS.line;
    context.lineWidth = 1;
    context.beginPath();
    context.moveTo(0, y(0) + 0.5);
    context.lineTo(width, y(0) + 0.5);
    context.stroke();
    if (this.limit) {
      context.setLineDash([3, 4]);
      context.beginPath();
      context.moveTo(0, y(this.limit));
      context.lineTo(width, y(this.limit));
      context.stroke();
      context.setLineDash([]);
    }
    context.lineWidth = 1.75;
    context.lineJoin = "round";
    for (const you of [false, true]) {
      context.strokeStyle = you ? COLOURS.two : COLOURS.one;
      context.beginPath();
      for (let i = 1; i < values.length; i++) {
        if (values[i].you !== you) continue;
        context.moveTo(x(i - 1), y(values[i - 1].value));
        context.lineTo(x(i), y(values[i].value));
      }
      context.stroke();
    }
  }
}

/** The numbers of z: bars drawn on one canvas, and over them sliders that can be moved while the dream is paused. */
class Latents {
  constructor(count, canvas, panel, moved, asked) {
    Object.assign(this, { canvas, panel, values: new Float32Array(count), paused: false });
    this.sliders = Array.from({ length: count }, (_, index) => {
      const label = element("label", `z${index + 1}`);
      const value = label.appendChild(element("span"));
      const slider = label.appendChild(document.createElement("input"));
      Object.assign(slider, { type: "range", min: -REACH, max: REACH, step: 0.05, value: 0, disabled: true });
      slider.setAttribute("aria-label", `z ${index + 1}`);
      slider.addEventListener("input", () => {
        this.values[index] = slider.valueAsNumber;
        this._say(index);
        this.draw();
        moved(index, slider.valueAsNumber);
      });
      slider.addEventListener("focus", () => asked(index));
      panel.append(label);
      return { slider, value };
    });
  }

  show(z) {
    this.values.set(z);
    if (this.paused) this._settle();
  }

  /** The sliders are the reader's while the dream is paused. */
  pause(paused) {
    this.paused = paused;
    for (const { slider, value } of this.sliders) {
      slider.disabled = !paused;
      if (!paused) value.textContent = "";
    }
    if (paused) this._settle();
  }

  _settle() {
    this.sliders.forEach(({ slider }, index) => {
      slider.value = this.values[index];
      this._say(index);
    });
  }

  _say(index) {
    this.sliders[index].value.textContent = this.values[index].toFixed(2).replace("-", "−");
  }

  draw() {
    const { context } = sharp(this.canvas), origin = this.canvas.getBoundingClientRect(), half = 6;
    this.places ??= [];
    if (this.width !== origin.width) { // positions only change with the window
      this.width = origin.width;
      this.places = this.sliders.map(({ slider }) => {
        const box = slider.getBoundingClientRect();
        return { x: box.left - origin.left, y: box.top - origin.top + box.height / 2, width: box.width };
      });
    }
    this.places.forEach(({ x, y, width }, i) => {
      const value = Math.min(Math.max(this.values[i], -REACH), REACH), middle = x + width / 2;
      const end = x + half + (value + REACH) / (2 * REACH) * (width - 2 * half);
      context.fillStyle = COLOURS.line;
      context.fillRect(x + half, y - 1, width - 2 * half, 2);
      context.fillRect(middle - 0.5, y - 5, 1, 10);
      context.fillStyle = COLOURS.one;
      context.fillRect(Math.min(middle, end), y - 2.5, Math.abs(end - middle), 5);
    });
  }
}

/** A row of small pictures with a word below each. */
class Strip {
  constructor(panel, count) {
    this.panel = panel;
    this.cells = Array.from({ length: count }, () => {
      const cell = panel.appendChild(element("div"));
      const canvas = cell.appendChild(element("canvas", "", { width: 64, height: 64, role: "img" }));
      return { canvas, words: cell.appendChild(element("small")) };
    });
  }

  show(frames, words) {
    frames.forEach((pixels, i) => {
      const { canvas, words: below } = this.cells[i];
      if (pixels) paint(canvas, pixels);
      canvas.style.opacity = pixels ? 1 : 0.35;
      below.textContent = words[i] ?? "";
      canvas.setAttribute("aria-label", words[i] || `future ${i + 1}`);
    });
  }
}
