"""CarRacing as drawn here against CarRacing as it ships: V's 64x64 frames and the game's own 96x96 observations."""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np

from jobs.benchmarks.measure import Row, one_core, rates
from wm.envs import load

BATCH = 32  # environments stepped in turn, as rollouts and evolution do


def games(seconds: float) -> list[Row]:
    game = load("car-racing")
    original, registered = gymnasium.make("CarRacing-v3"), gymnasium.make("wm.envs:wm/CarRacing-v3")
    with one_core():
        fast, batch, large, exact, unmodified = rates(
            [
                driver(game.make(), 1000),
                batch_driver([game.make() for _ in range(BATCH)], 20),
                driver(registered, 1000),
                driver(game.make(exact=True), 100),
                driver(original, 100),
            ],
            10 * seconds,
            turns=2,
        )
    doom = [load("doom").make(exact=exact) for exact in (False, True)]
    try:
        small, full = rates([driver(each, 50, "doom") for each in doom], 2 * seconds, turns=2)
    finally:
        for each in doom:
            each.close()
    return [
        Row("Doom at 320x240, in a process of its own, resets included", small, "steps/s", full),
        Row("Doom at 640x480, in a process of its own, resets included", full, "steps/s"),
        Row("CarRacing at 64x64, one core, resets included", fast, "steps/s", exact),
        Row(f"CarRacing at 64x64, one core, {BATCH} environments in turn", batch, "steps/s", exact),
        Row("CarRacing at 96x96 with instruments, one core, resets included", large, "steps/s", unmodified),
        Row("unmodified CarRacing, one core", exact, "steps/s"),
        Row("unmodified CarRacing at 96x96, one core", unmodified, "steps/s"),
    ]


def batch_driver(envs: list[Any], steps: int) -> Callable[[], int]:
    """Plays so many steps in each environment at a time, all environments in turn at each step."""
    plays = [driver(env, 1, first_seed=1000 * number) for number, env in enumerate(envs)]

    def play() -> int:
        return sum(play_one() for _ in range(steps) for play_one in plays)

    return play


def driver(env: Any, steps: int, game: str = "car-racing", first_seed: int = 0) -> Callable[[], int]:
    """Plays so many steps at a time, a new track each 1,000."""
    rng = np.random.default_rng(1)
    scripts = load(game).explore("mixture", 1000, rng)
    position = {"step": 1000, "seed": first_seed}

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
