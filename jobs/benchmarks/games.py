"""CarRacing as drawn here against CarRacing as it ships, both down to the 64x64 frame."""

from collections.abc import Callable
from typing import Any

import numpy as np

from jobs.benchmarks.measure import Row, one_core, rates
from wm.envs import load


def games(seconds: float) -> list[Row]:
    game = load("car-racing")
    with one_core():
        fast, exact = rates([driver(game.make(), 1000), driver(game.make(exact=True), 100)], 4 * seconds, turns=2)
    doom = [load("doom").make(exact=exact) for exact in (False, True)]
    try:
        small, original = rates([driver(each, 50, "doom") for each in doom], 2 * seconds, turns=2)
    finally:
        for each in doom:
            each.close()
    return [
        Row("Doom at 320x240, in a process of its own, resets included", small, "steps/s", original),
        Row("Doom at 640x480, in a process of its own, resets included", original, "steps/s"),
        Row("CarRacing, one core, resets included", fast, "steps/s", exact),
        Row("unmodified CarRacing, one core", exact, "steps/s"),
    ]


def driver(env: Any, steps: int, game: str = "car-racing") -> Callable[[], int]:
    """Plays so many steps at a time, a new track each 1,000."""
    rng = np.random.default_rng(1)
    scripts = load(game).explore("mixture", 1000, rng)
    position = {"step": 1000, "seed": 0}

    def play() -> int:
        for _ in range(steps):
            if position["step"] >= 1000:
                position["seed"] += 1
                position["step"] = 0
                env.reset(seed=position["seed"])
            _, _, terminated, truncated, _ = env.step(scripts[position["step"]])
            position["step"] = 1000 if terminated or truncated else position["step"] + 1
        return steps

    return play
