"""The page in a real browser: the dream there is wm's own, keys drive it, and it asks for nothing from elsewhere."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browser import CHROMIUM, Browser, browser
from dreams import Opening, by_page, by_wm, logged, one_step_each

from wm.agents.files import load_agent
from wm.agents.trained import Trained
from wm.models.build import controller_of
from wm.play.page import play_page

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")

AGENTS = ("car-racing", "doom")
STEPS, EVERY = 200, 10
SEEDS = 5  # dreams for each agent


ONE_PEDAL = "car-racing-one-pedal"


def with_one_pedal(trained: Trained) -> Trained:
    """The same agent with the first two outputs of its C alone."""
    assert trained.config.controller.inputs == "zh"
    config = replace(trained.config, controller=replace(trained.config.controller, one_pedal=True))
    *_, features = trained.controller.shapes[0]
    matrix, bias = np.split(trained.theta, [3 * features])
    theta = np.concatenate([matrix[: 2 * features], bias[:2]])
    return replace(
        trained, config=config, models=replace(trained.models, controller=controller_of(config)), theta=theta
    )


class Watched(Browser):
    """Keeps the address of everything that the page asks for."""

    requests: list[str]

    def _read(self) -> dict[str, Any]:
        message = super()._read()
        if message.get("method") == "Network.requestWillBeSent":
            self.requests.append(message["params"]["request"]["url"])
        return message


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Trained, Path]]:
    torch.set_num_threads(1)
    folder, found = tmp_path_factory.mktemp("pages"), {}
    agents = {name: load_agent(name) for name in AGENTS}
    for name, trained in {**agents, ONE_PEDAL: with_one_pedal(agents["car-racing"])}.items():
        path = folder / f"{name}.html"
        path.write_text(play_page(trained))
        found[name] = trained, path
    return found


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with browser(tmp_path_factory.mktemp("profile")) as one:
        one.__class__ = Watched
        assert isinstance(one, Watched)
        one.requests = []
        yield one


def opened(chromium: Watched, path: Path, width: int = 1200, scheme: str = "light") -> None:
    chromium.requests.clear()
    chromium.open(path, width, 900, scheme, mobile=width < 600)
    chromium.until("dream.firstFrame > 0")


def clean(chromium: Watched, path: Path) -> None:
    """No error or warning was logged, and nothing was loaded but the file and the worker that it made itself."""
    assert chromium.complaints == []
    assert [url for url in chromium.requests if not url.startswith("blob:")] == [path.resolve().as_uri()]


@pytest.mark.parametrize("name", [*AGENTS, ONE_PEDAL])
def test_it_is_the_same_dream(chromium: Watched, pages: dict[str, tuple[Trained, Path]], name: str) -> None:
    """The same first frame and noise, C playing in both; differences of z in its standard deviations.

    A dream amplifies differences: about one in twenty chooses another component or action within 200 steps because of
    the seventh digit, and from there on it is another dream. wm's own dreams do so, too, when their precision changes.
    """
    trained, path = pages[name]
    opened(chromium, path)
    chromium.evaluate("document.getElementById('pause').click()")
    whole = []
    for seed in range(1, SEEDS + 1):
        opening = Opening.drawn(trained, STEPS, seed, tau=(1.0, 1.0, 1.0, 0.5, 1.3)[seed - 1])
        ours, (theirs, frames) = by_wm(trained, opening), by_page(chromium, trained, opening, EVERY)
        z = np.abs(theirs.z - ours.z).max(axis=1) / ours.z.std(axis=0).min()  # (T,)
        assert z[0] < 0.001
        assert z[:50].max() < 0.01
        assert np.abs(theirs.h - ours.h)[:50].max() < 0.001
        assert np.abs(theirs.reward - ours.reward)[:50].max() < 0.001
        pixels = np.abs(ours.frames(trained)[EVERY - 1 :: EVERY] - frames).max(axis=(1, 2, 3))  # (F,)
        assert pixels[: 50 // EVERY].max() < 1
        others = max(np.abs(getattr(theirs, x) - getattr(ours, x)).max() for x in ("h", "reward"))
        whole.append(z.max() < 0.05 and others < 0.05 and pixels.max() < 2)
    assert sum(whole) >= SEEDS - 2, whole
    clean(chromium, path)


@pytest.mark.parametrize("name", AGENTS)
def test_each_of_200_steps_agrees(chromium: Watched, pages: dict[str, tuple[Trained, Path]], name: str) -> None:
    """From each state of wm's dream the page makes the same next one, however the two would drift apart."""
    trained, path = pages[name]
    opened(chromium, path)
    chromium.evaluate("document.getElementById('pause').click()")
    opening = Opening.drawn(trained, STEPS, seed=11, tau=1.3)
    ours = by_wm(trained, opening)
    theirs = one_step_each(chromium, trained, opening, ours)
    differences = np.abs(theirs.z - ours.z).max(axis=1)  # (T,)
    assert (differences > 1e-4).sum() <= 1  # a choice on the very edge between two components
    assert np.abs(theirs.h - ours.h).max() < 1e-4
    assert np.abs(theirs.reward - ours.reward).max() < 1e-4
    if trained.memory is not None and trained.memory.outputs[4]:  # it has an end
        assert np.abs(theirs.logit - ours.logit).max() < 1e-3


def test_keys_drive_the_car(chromium: Watched, pages: dict[str, tuple[Trained, Path]]) -> None:
    """Real key events, thirty frames a second; then wm replays what was done and dreams the same."""
    trained, path = pages["car-racing"]
    opened(chromium, path)
    opening = Opening.drawn(trained, 300, seed=1)
    chromium.evaluate(
        f"""(async () => {{
            const unpack = (text) => new Float32Array(Uint8Array.from(atob(text), (one) => one.charCodeAt(0)).buffer);
            await dream.begin(0, {opening.options()});
            window.pressed = [];
            addEventListener('keydown', () => pressed.push([dream.state.frame.steps, dream.drawn]));
        }})()"""
    )
    chromium.until("dream.state.frame.steps > 10")
    chromium.key("ArrowLeft", "keyDown")
    chromium.key("ArrowUp", "keyDown")
    assert chromium.evaluate("document.getElementById('driver').innerText") == "You are driving"
    chromium.until("dream.state.frame.steps > 45")
    shot = chromium.evaluate("[...document.querySelectorAll('.keys .held')].map(x => x.ariaLabel).sort().join()")
    assert shot == "gas,steer left"
    chromium.key("ArrowLeft", "keyUp")
    chromium.key("ArrowUp", "keyUp")
    chromium.until("dream.state.frame.steps > 60")
    chromium.key(" ")
    chromium.until("!dream.state.busy")
    played = logged(chromium, trained)
    (pressed, _), *_ = chromium.evaluate("pressed")

    by_c = by_wm(trained, opening)
    changed = int(np.flatnonzero(np.abs(played.a - by_c.a[: len(played.a)]).max(axis=1) > 0.01)[0])  # the step
    assert changed <= pressed + 2  # a frame may be on its way; the next one has it
    assert played.a[44, 0] == pytest.approx(-0.6, abs=0.02)
    assert played.a[44, 1] == pytest.approx(0.6, abs=0.02)
    assert np.abs(played.a[60, :2]).max() < 0.01  # let go, but not C yet
    replayed = by_wm(trained, opening, played.a)
    assert np.abs(played.z - replayed.z).max() < 0.01
    assert np.abs(played.z[44] - by_c.z[44]).max() > 0.5  # another dream than C's
    clean(chromium, path)


def test_c_takes_over_again(chromium: Watched, pages: dict[str, tuple[Trained, Path]]) -> None:
    _, path = pages["doom"]
    opened(chromium, path)
    chromium.key("ArrowRight", "keyDown")
    chromium.until("dream.state.frame.a[0] === 1 && document.getElementById('driver').dataset.who === 'you'")
    chromium.key("ArrowRight", "keyUp")
    chromium.until("dream.state.frame.a[0] === 0")
    chromium.until("document.getElementById('driver').dataset.who === 'c'", seconds=8)
    clean(chromium, path)


def test_the_same_seed_dreams_the_same(chromium: Watched, pages: dict[str, tuple[Trained, Path]]) -> None:
    _, path = pages["doom"]
    opened(chromium, path)
    chromium.evaluate("document.getElementById('pause').click()")
    told = chromium.evaluate(
        """(async () => {
            const ends = [];
            for (const [seed, tau] of [[7, 1], [7, 1], [8, 1], [7, 1.5]]) {
              await dream.ask('begin', { seed });
              await dream.ask('run', { steps: 20, tau: 1 });
              await dream.ask('futures', { tau });  // a look ahead changes nothing
              ends.push((await dream.ask('step', { tau: 1 })).z.join());
            }
            return JSON.stringify(ends);
        })()"""
    )
    one, again, other, looked = json.loads(told)
    assert one == again == looked
    assert one != other


def test_a_number_is_changed_by_hand(chromium: Watched, pages: dict[str, tuple[Trained, Path]]) -> None:
    _, path = pages["car-racing"]
    opened(chromium, path)
    slider = "document.querySelector('#latents input')"
    assert chromium.evaluate(f"{slider}.disabled")
    chromium.key(" ")
    chromium.until(f"!{slider}.disabled && !dream.state.busy")
    steps = chromium.evaluate("dream.state.frame.steps")
    chromium.evaluate(f"window.before = dream.state.frame.pixels.join(); {slider}.focus()")
    for _ in range(20):
        chromium.key("ArrowRight")
    chromium.until("dream.state.frame.pixels.join() !== before && !document.getElementById('traversal').hidden")
    chromium.until(f"Math.abs(dream.state.frame.z[0] - {slider}.valueAsNumber) < 1e-6")
    assert chromium.evaluate("dream.person.drives") is False  # the arrows were the slider's
    chromium.evaluate(f"{slider}.blur()")
    chromium.key(".")
    chromium.until(f"dream.state.frame.steps === {steps + 1}")  # one step, and the dream stands still again
    chromium.key("f")
    chromium.until("document.getElementById('ahead').textContent === '+1.0 s'")
    assert chromium.evaluate("dream.state.paused && dream.state.frame.steps") == steps + 1
    clean(chromium, path)


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1200, "light")])
def test_it_shows_as_it_should(
    chromium: Watched, pages: dict[str, tuple[Trained, Path]], tmp_path: Path, width: int, scheme: str
) -> None:
    _, path = pages["doom"]
    opened(chromium, path, width, scheme)
    chromium.evaluate("document.getElementById('look').click()")
    chromium.until("document.getElementById('ahead').textContent === '+1.0 s'")
    chromium.evaluate("document.querySelector('#latents input').focus()")
    chromium.until("!document.getElementById('traversal').hidden")
    assert chromium.evaluate("document.documentElement.scrollWidth") <= width
    paper = chromium.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(int(part) for part in paper.removeprefix("rgb(").removesuffix(")").split(","))
    assert (brightness > 600) == (scheme == "light")
    assert "{{" not in chromium.evaluate("document.body.innerText")
    unnamed = chromium.evaluate(
        "[...document.querySelectorAll('button, input')].filter(x => !(x.innerText || x.labels?.length"
        " || x.ariaLabel)).length"
    )
    assert unnamed == 0
    chromium.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 20_000
    clean(chromium, path)
