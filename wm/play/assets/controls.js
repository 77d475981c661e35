"use strict";
// The person's side: keys, buttons and touch become actions.

const PLACES = { "↑": "up", "←": "left", "↓": "down", "→": "right" }; // as on a keyboard
const PATIENCE = 90; // steps without a key after which C continues: three seconds

class Person {
  /** `changed` is called when a key goes down or up. */
  constructor({ numbers, keys, choice }, panel, changed) {
    Object.assign(this, { numbers, keys, choice, changed });
    this.held = new Map(); // key to how many hold it: a button and a keyboard may
    this.idle = Infinity; // steps since the last key went up
    this.a = Float32Array.from(numbers, (number) => number.rest);
    this.buttons = keys.map((key) => this._button(key, panel));
    panel.classList.toggle("arrows", keys.length === 4 && keys.every((key) => key.label in PLACES));
    addEventListener("keydown", (event) => this._key(event, true));
    addEventListener("keyup", (event) => this._key(event, false));
    addEventListener("blur", () => this._release());
  }

  get drives() {
    return this.held.size > 0 || this.idle < PATIENCE;
  }

  /** What the person does in this step, or null where C drives. `last` is the action before: the wheel starts there. */
  act(last) {
    if (!this.drives) return null;
    if (this.idle === 0 && this.fresh) this.a.set(last);
    this.fresh = false;
    const goal = this.numbers.map((number) => number.rest);
    const pressed = [...this.held.keys()];
    if (this.choice) {
      const chosen = pressed.length ? pressed.at(-1).index : goal.includes(1) ? goal.indexOf(1) : this.a.indexOf(1);
      this.a.fill(0)[Math.max(chosen, 0)] = 1;
    } else {
      const touched = new Map();
      for (const { index, value } of pressed) touched.set(index, [...(touched.get(index) ?? []), value]);
      for (const [index, values] of touched) goal[index] = values.reduce((sum, value) => sum + value) / values.length;
      this.a.forEach((now, i) => {
        const next = now + this.numbers[i].pace * (goal[i] - now);
        this.a[i] = Math.abs(goal[i] - next) < 0.01 ? goal[i] : next;
      });
    }
    this.idle = pressed.length ? 0 : this.idle + 1;
    return this.a;
  }

  press(key) {
    if (!this.drives) this.fresh = true;
    this.held.set(key, (this.held.get(key) ?? 0) + 1);
    this.idle = 0;
    this._show();
  }

  lift(key) {
    const count = this.held.get(key);
    if (!count) return;
    if (count > 1) this.held.set(key, count - 1);
    else this.held.delete(key);
    this._show();
  }

  _release() {
    this.held.clear();
    this._show();
  }

  _show() {
    this.buttons.forEach((button, i) => button.classList.toggle("held", this.held.has(this.keys[i])));
    this.changed();
  }

  _key(event, down) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const key = this.keys.find(({ codes }) => codes.includes(event.code));
    if (!key || (down && usesKeys(event.target))) return;
    if (down) event.preventDefault(); // an arrow scrolls the page
    if (down && !event.repeat) this.press(key);
    if (!down) this.lift(key);
  }

  _button(key, panel) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(element("b", key.label), element("small", key.name));
    button.setAttribute("aria-label", key.name);
    if (key.label in PLACES) button.style.gridArea = PLACES[key.label];
    panel.append(button);
    let pointer = null, typed = false;
    const up = () => { if (pointer !== null) { pointer = null; this.lift(key); } };
    button.addEventListener("pointerdown", (event) => {
      if (pointer !== null || event.button > 0) return;
      pointer = event.pointerId;
      button.setPointerCapture(pointer);
      this.press(key);
    });
    for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) button.addEventListener(end, up);
    button.addEventListener("contextmenu", (event) => event.preventDefault());
    button.addEventListener("keydown", (event) => {
      if (event.code !== "Space" && event.code !== "Enter") return;
      event.preventDefault();
      event.stopPropagation();
      if (!typed) this.press(key);
      typed = true;
    });
    const lifted = (event) => { if (typed && (event.type === "blur" || ["Space", "Enter"].includes(event.code))) { typed = false; this.lift(key); } };
    button.addEventListener("keyup", lifted);
    button.addEventListener("blur", lifted);
    button.addEventListener("click", (event) => {
      if (event.detail !== 0) return; // a screen reader's click has no pointer: a third of a second
      this.press(key);
      setTimeout(() => this.lift(key), 330);
    });
    return button;
  }
}

/** Whether arrows and letters mean something to what has the focus. */
function usesKeys(target) {
  return target instanceof HTMLInputElement || target instanceof HTMLTextAreaElement || target?.isContentEditable;
}

function element(name, text = "", attributes = {}) {
  const made = document.createElement(name);
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}
