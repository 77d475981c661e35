"""Records docs/playing.webp: the page in a real browser, steered with real key events.

PYTHONPATH=.:tests python tests/wm/play/record.py docs/playing.webp

The page runs in slow motion, since taking pictures slows a browser without a GPU down, and the film plays at full
speed. Explanations are hidden, so that the rest fits into the picture.
"""

import base64
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from browser import Browser, browser

from wm.agents.files import load_agent
from wm.play.page import play_page

WIDTH, HEIGHT = 960, 498  # of the window
SHOWN, RATE, QUALITY = 720, 15, 68  # the film's width, pictures a second, and WebP quality
SLOWER = 5
BEFORE, DRIVES, AFTER = 2.0, 8.5, 4.5  # seconds of the film: C, the person, and until C has taken over again
HIDE = (
    "document.head.append(Object.assign(document.createElement('style'), { textContent: '.note { display: none }' }))"
)
ROAD = """(() => {  // where the road is ahead of the car, in pixels from the middle, and how the car is paid
    const { pixels, reward } = dream.state.frame;
    let sum = 0, count = 0;
    for (let y = 30; y < 44; y++) for (let x = 0; x < 64; x++) {
        const at = 4 * (64 * y + x);
        if (pixels[at + 1] - pixels[at] < 30) { sum += x - 31.5; count += 1; }
    }
    return [count ? sum / count : 0, reward];
})()"""


class Recorder(Browser):
    """Keeps what the browser has painted, with its time."""

    pictures: list[tuple[float, bytes]]

    def _read(self) -> dict[str, Any]:
        message = super()._read()
        if message.get("method") == "Page.screencastFrame":
            about = message["params"]
            self.pictures.append((about["metadata"]["timestamp"], base64.b64decode(about["data"])))
            # An id of its own kind, since `call` waits for the last number.
            answer = {
                "id": 1_000_000 + len(self.pictures),
                "method": "Page.screencastFrameAck",
                "sessionId": self.session,
            }
            answer["params"] = {"sessionId": about["sessionId"]}
            self.to.write(json.dumps(answer).encode() + b"\0")
        return message


def drive(one: Recorder, seconds: float) -> None:
    """Towards the road, and less so where it comes closer by itself; with taps on the gas, as a person would."""
    held, before = set[str](), 0.0
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        aside, reward = one.evaluate(ROAD)
        turn, before = aside + 3 * (aside - before), aside
        wanted = {"ArrowLeft"} if turn < -2 else {"ArrowRight"} if turn > 2 else set()
        if reward < 0.9 and abs(turn) < 9:
            wanted.add("ArrowUp")
        wanted = wanted if left > 0.4 else set()
        for kind, keys in (("keyUp", held - wanted), ("keyDown", wanted - held)):
            for key in keys:
                one.key(key, kind)
        held = wanted
        time.sleep(0.05)
    for key in held:
        one.key(key, "keyUp")


def wait(one: Recorder, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        one.evaluate("0")  # what was painted is read meanwhile
        time.sleep(0.03)


def main(path: Path, seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder, browser(Path(folder)) as one:
        one.__class__ = Recorder
        assert isinstance(one, Recorder)
        one.pictures = []
        page = Path(folder) / "page.html"
        page.write_text(play_page(load_agent("car-racing")))
        one.open(page, WIDTH, HEIGHT, "dark", mobile=False)
        wait(one, 1)
        one.evaluate(HIDE)
        one.evaluate("scrollTo(0, document.querySelector('.desk').offsetTop - 12)")
        one.evaluate(f"dream.begin({seed})")
        wait(one, 2.5)
        one.call("Page.startScreencast", format="png", everyNthFrame=1)
        one.evaluate("document.getElementById('slow').click()")
        wait(one, SLOWER * BEFORE)
        drive(one, SLOWER * DRIVES)
        wait(one, SLOWER * AFTER)
        one.call("Page.stopScreencast")
        print(one.evaluate("[dream.state.frame.total, dream.state.frame.steps]"), len(one.pictures))
    path.write_bytes(film(one.pictures))
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


def film(pictures: list[tuple[float, bytes]]) -> bytes:
    """At an even rate: at each moment the last picture that was there."""
    times = np.array([when for when, _ in pictures])
    moments = np.arange(times[0], times[-1], SLOWER / RATE)
    chosen = np.searchsorted(times, moments, side="right") - 1
    animation, frames = cv2.Animation(), []
    for index in chosen:
        picture = cv2.imdecode(np.frombuffer(pictures[index][1], np.uint8), cv2.IMREAD_COLOR)
        height = round(picture.shape[0] * SHOWN / picture.shape[1])
        frames.append(cv2.resize(picture, (SHOWN, height), interpolation=cv2.INTER_AREA))
    animation.frames, animation.durations = frames, [round(1000 / RATE)] * len(frames)
    good, data = cv2.imencodeanimation(".webp", animation, [cv2.IMWRITE_WEBP_QUALITY, QUALITY])
    assert good
    return data.tobytes()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1)
