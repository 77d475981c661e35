"use strict";
// The loop: thirty times a second ask the worker for the next moment and show it.

const $ = (id) => document.getElementById(id);
const RATE = 30, SLOWER = 5; // steps a second, and how much fewer in slow motion
const REST = 4000, SOON = 1000; // milliseconds after a dream's end: the next one begins, and a key may begin it
const ENDS = {
  end: "M predicts the end of the episode here.",
  lap: "The lap is complete.",
  limit: "The time limit of the game is reached.",
};

const spec = JSON.parse($("spec").textContent);
const worker = openWorker();
const state = {
  seed: $("seed").valueAsNumber, tau: spec.rules.tau, paused: true, slow: false, busy: false,
  last: 0, frame: null, dreams: 0, rates: [], ended: 0, looking: 0,
};
const person = new Person(spec.controls, $("keys"), keyed);
const actions = new Actions(spec.controls.numbers, $("actions"));
const curve = new Curve($("spark"), spec.done > 0, spec.rules.done === "threshold" && 1 / (1 + spec.rules.doneWeight));
const latents = new Latents(spec.z, $("bars"), $("latents"), turn, traverse);
const futures = new Strip($("futures"), 8), traversal = new Strip($("traversal"), 7);

// For the console and the tests: dream.ask("run", { steps: 100, tau: 1 }).
const dream = (window.dream = { ask, begin, state, spec, person, intervals: [], drawn: 0, firstFrame: 0, show });

/** The worker runs from this file alone, so the page opens from a folder. */
function openWorker() {
  const source = new Blob([$("worker").textContent], { type: "text/javascript" });
  const made = new Worker(URL.createObjectURL(source));
  made.waiting = new Map();
  made.count = 0;
  made.onmessage = ({ data: { id, more, value, error } }) => {
    const { resolve, reject, tell } = made.waiting.get(id);
    if (more) return tell?.(value);
    made.waiting.delete(id);
    return error ? reject(new Error(error)) : resolve(value);
  };
  return made;
}

function ask(type, about = {}, tell = undefined) {
  const id = worker.count++;
  return new Promise((resolve, reject) => {
    worker.waiting.set(id, { resolve, reject, tell });
    worker.postMessage({ id, type, ...about });
  });
}

async function begin(seed, about = {}) {
  const number = ++state.dreams;
  Object.assign(state, { seed, ended: 0 });
  $("seed").value = seed;
  $("curtain").hidden = true;
  curve.clear();
  const frame = await ask("begin", { seed, ...about });
  if (number === state.dreams) show(frame);
}

async function step() {
  if (state.busy || state.frame?.over) return;
  state.busy = true;
  const number = state.dreams, a = person.act(state.frame.a);
  const frame = await ask("step", { a, tau: state.tau });
  state.busy = false;
  if (number !== state.dreams) return;
  curve.add(spec.done ? frame.chance : frame.reward, Boolean(a));
  show(frame);
  if (frame.over) end(frame.over);
}

function end(why) {
  state.ended = performance.now();
  $("curtain-text").textContent = `${ENDS[why]} ${state.frame.steps} steps, return ${state.frame.total.toFixed(0)}.`;
  $("again").hidden = $("curtain").hidden = false;
  say($("curtain-text").textContent);
}

function loop(now) {
  requestAnimationFrame(loop);
  if (state.ended && !state.paused && !person.held.size && now - state.ended > REST) return begin(state.seed + 1);
  const interval = 1000 / RATE * (state.slow ? SLOWER : 1);
  if (state.paused || state.busy || !state.frame || now - state.last < interval - 4) return;
  state.last = Math.max(state.last + interval, now - interval);
  step();
}

function show(frame) {
  const now = performance.now(), { frame: before } = state;
  state.frame = frame;
  paint($("frame"), frame.pixels);
  actions.show(frame.a, person.drives);
  if (state.shown && frame.steps === before?.steps + 1) dream.intervals.push(now - state.shown);
  state.shown = now;
  dream.drawn += 1;
  dream.firstFrame ||= now;
  latents.show(frame.z);
  const few = state.paused || dream.drawn % 2 === 0; // text and curves need no thirty pictures a second
  if (few) {
    latents.draw();
    curve.draw();
  }
  if (few && (state.paused || dream.drawn % 6 === 0 || frame.over)) write(frame);
  drawDriver();
}

function write(frame) {
  $("now").textContent = frame.steps ? (spec.done ? percent(frame.chance) : signed(frame.reward)) : "–";
  $("total").textContent = frame.total.toFixed(spec.done ? 0 : 1).replace("-", "−");
  $("steps").textContent = frame.steps;
  const recent = dream.intervals.slice(-30), sum = recent.reduce((a, b) => a + b, 0);
  $("rate").textContent = state.paused ? "paused" : sum ? `${(1000 * recent.length / sum).toFixed(0)} frames/s` : "";
}

const signed = (x) => (x < 0 ? "−" : "+") + Math.abs(x).toFixed(2);
const percent = (p) => (p < 0.001 ? "< 0.1 %" : `${(100 * p).toFixed(p < 0.1 ? 1 : 0)} %`);

/** A key went down or up: it starts a dream that is paused, and another one where it is over. */
function keyed() {
  drawDriver();
  if (!person.held.size) return;
  if (state.paused) resume();
  if (state.ended && performance.now() - state.ended > SOON) begin(state.seed + 1);
}

function drawDriver() {
  const who = person.drives ? "you" : "c";
  if ($("driver").dataset.who === who) return;
  $("driver").dataset.who = who;
  $("driver").textContent = who === "you" ? spec.words.you : spec.words.c;
  say($("driver").textContent);
}

function say(text) {
  $("status").textContent = text;
}

function resume() {
  setPaused(false);
}

function setPaused(paused) {
  if (state.paused === paused) return;
  state.paused = paused;
  $("pause").firstElementChild.textContent = paused ? "Play" : "Pause";
  latents.pause(paused);
  if (!paused) {
    state.last = state.shown = 0;
    $("traversal").hidden = true;
    $("traversal-note").textContent = "";
  }
  if (state.frame) write(state.frame);
  latents.draw();
  say(paused ? "Paused" : "Playing");
}

async function turn(index, value) {
  show(await ask("set", { index, value }));
  state.traversed = null;
  traverse(index);
}

/** The frame with other values of one number of z. One request at a time: a slider moves faster than that. */
async function traverse(index) {
  state.wanted = index;
  if (state.traversing) return;
  state.traversing = true;
  while (state.wanted !== null) {
    const at = state.wanted;
    state.wanted = null;
    const { values, frames } = await ask("traverse", { index: at });
    if (!state.paused) break;
    $("traversal").hidden = false;
    traversal.show(frames, values.map((value) => signedWhole(value)));
    $("traversal-note").textContent = `z${at + 1} from −3 to +3, all other numbers as they are.`;
  }
  state.wanted = null;
  state.traversing = false;
}

const signedWhole = (value) => (value > 0 ? `+${value}` : value < 0 ? `−${-value}` : "0");

async function lookAhead() {
  if (!state.frame) return;
  setPaused(true);
  $("futures").hidden = false;
  const number = ++state.looking, film = [];
  const a = person.drives ? person.a : null;
  const draw = ({ frames, ended, step: at }) => {
    $("ahead").textContent = `+${(at / RATE).toFixed(1)} s`;
    futures.show(frames, ended.map((when) => (when && when <= at ? `ends +${(when / RATE).toFixed(1)} s` : "")));
  };
  await ask("futures", { a, tau: state.tau }, (moment) => { film.push(moment); if (number === state.looking) draw(moment); });
  for (let at = film.length + 3; number === state.looking && state.paused; at++) { // again and again, until time goes on
    await new Promise((resolve) => setTimeout(resolve, 100));
    if (number === state.looking && document.visibilityState === "visible") draw(film[Math.min(at % (film.length + 4), film.length - 1)]);
  }
}

function shortcuts(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || usesKeys(event.target) && event.code !== "Escape") return;
  const button = { Space: "pause", Period: "step", KeyL: "slow", KeyN: "next", KeyR: "repeat", KeyF: "look" }[event.code];
  const onButton = event.code === "Space" && event.target instanceof HTMLButtonElement;
  if (!button || onButton) return;
  event.preventDefault();
  if (!event.repeat || button === "step") $(button).click();
}

function connect() {
  $("pause").onclick = () => setPaused(!state.paused);
  $("step").onclick = () => { setPaused(true); step(); };
  $("slow").onclick = () => { state.slow = !state.slow; $("slow").setAttribute("aria-pressed", state.slow); dream.intervals.length = 0; };
  $("next").onclick = () => begin(state.seed + 1);
  $("repeat").onclick = () => begin(state.seed);
  $("again").onclick = () => begin(state.seed + 1);
  $("look").onclick = lookAhead;
  $("seed").onchange = () => begin(Math.min(Math.max(Math.trunc($("seed").valueAsNumber || 0), 0), 999999999));
  $("tau").oninput = () => { state.tau = $("tau").valueAsNumber; drawTau(); };
  // What was moved or clicked with the mouse gives the keys back to the game.
  $("tau").addEventListener("pointerup", () => $("tau").blur());
  addEventListener("click", (event) => { if (event.detail) event.target.closest?.("button")?.blur(); });
  addEventListener("keydown", shortcuts);
  addEventListener("resize", redraw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { readColours(); redraw(); });
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) state.left = !state.paused;
    if (document.hidden || state.left) setPaused(document.hidden);
  });
}

function drawTau() {
  $("tau-value").textContent = state.tau.toFixed(2);
}

function redraw() {
  latents.draw();
  curve.draw();
}

async function start() {
  readColours();
  connect();
  drawTau();
  const texts = Object.fromEntries(["weights", "wasm"].map((id) => [id, $(id).textContent]));
  Object.assign(dream, await ask("load", { spec, ...texts }));
  for (const id of ["weights", "wasm"]) $(id).remove(); // megabytes that nobody needs any more
  await begin(state.seed);
  requestAnimationFrame(loop);
  if (!matchMedia("(prefers-reduced-motion: reduce)").matches) resume();
  else latents.pause(true);
}

start().catch((error) => {
  $("curtain").hidden = false;
  $("curtain-text").textContent = "This browser can’t run the dream. It needs web workers and typed arrays.";
  console.error(error);
});
