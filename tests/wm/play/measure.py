"""Measures the page in a real browser: frame rate, size, start and the delay from a key to a changed frame.

PYTHONPATH=.:tests python tests/wm/play/measure.py
"""

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from browser import Browser, browser

from wm.agents.files import load_agent
from wm.play.page import play_page

SECONDS = 40  # of play
STARTS = 5
PRESSES = 10
KEY = {"car-racing": "ArrowLeft", "doom": "ArrowRight"}
STEP = """(async () => {
    document.getElementById('pause').click();
    await dream.ask('run', { steps: 20, tau: 1 });
    const began = performance.now();
    for (let i = 0; i < 50; i++) await dream.ask('step', { tau: 1 });
    return (performance.now() - began) / 50;
})()"""
WATCH = """(() => {
    window.delays = [];
    let waits = null, before = '';
    addEventListener('keydown', (event) => { if (!event.repeat) waits = dream.drawn; }, true);
    const loop = () => {
        const now = dream.state.frame.a.join();
        if (waits !== null && now !== before) { delays.push(dream.drawn - waits); waits = null; }
        before = now;
        requestAnimationFrame(loop);
    };
    loop();
})()"""


def measure(one: Browser, name: str, path: Path) -> None:
    starts = []
    for _ in range(STARTS):
        one.open(path, 1200, 900, "light", mobile=False)
        one.until("dream.firstFrame > 0")
        starts.append(one.evaluate("dream.firstFrame") / 1000)
    time.sleep(2)
    one.evaluate("dream.intervals.length = 0")
    time.sleep(SECONDS)
    milliseconds = np.array(one.evaluate("[...dream.intervals]"))

    for press in range(1 + PRESSES):
        if press == 1:  # from the first press on the person drives, and C changes no action
            one.evaluate(WATCH)
        for kind in ("keyDown", "keyUp"):
            one.key(KEY[name], kind)
            time.sleep(0.5)
    delays = one.evaluate("delays")
    print(
        f"{name}: {path.stat().st_size / 1e6:.2f} MB, first frame after {statistics.median(starts):.2f} s, "
        f"{1000 / milliseconds.mean():.1f} frames/s, 50% {np.median(milliseconds):.1f} ms, "
        f"99% {np.quantile(milliseconds, 0.99):.1f} ms, of a step alone {one.evaluate(STEP):.1f} ms, "
        f"from a key to a changed action {statistics.median(delays)} frames "
        f"(at most {max(delays)}, {len(delays)} presses)"
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, browser(Path(folder)) as one:
        for name in KEY:
            path = Path(folder, f"{name}.html")
            path.write_text(play_page(load_agent(name)))
            measure(one, name, path)


if __name__ == "__main__":
    main()
