"""What needs no learning: the scores of random actions and of doing nothing, on the test episodes of the game.

They are kept in the run, so that they are measured once.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from wm.envs import Game, load
from wm.envs.rollout import ScriptedPolicy, play
from wm.runs.reader import read, sealed
from wm.runs.run import Run
from wm.schemas import integer, number, record, sequence, text
from wm.seeds import generator, test_episode
from wm.statistics import mean_of

KEY = "baselines.json"
EPISODES = 16  # of each baseline
BASELINE = record(
    {
        "name": text(),
        "score": number(),
        "std": number(0),
        "se": number(0),
        "episodes": integer(1),
        "steps": integer(1),
    }
)
SCHEMA = record({"game": text(), "first": integer(), "baselines": sequence(BASELINE)})


@dataclass(frozen=True)
class Baseline:
    name: str
    score: float
    std: float
    se: float
    episodes: int
    steps: int  # time limit of an episode


def stored(run: Run) -> dict[str, Any] | None:
    """The verified content of the file, if there is one. Imports no game."""
    return read(run.storage, KEY, SCHEMA, f"delete it and run `python -m jobs.report --run {run.uri}`")


def measured(run: Run) -> tuple[Baseline, ...]:
    """The baselines that were measured for this run's game, if any."""
    values = stored(run)
    if values is None or {name: values[name] for name in ("game", "first")} != _what(run):
        return ()
    return tuple(Baseline(**one) for one in values["baselines"])


def measure(run: Run) -> tuple[Baseline, ...]:
    """Play the first test episodes at random and without acting, unless the run has these baselines already."""
    found = measured(run)
    if found:
        return found
    game, first = load(run.config.game), run.config.score.seed
    random = [game.explore(game.explorations[0], game.max_steps, generator(first, "baseline", n)) for n in _numbers()]
    idle = np.broadcast_to(game.idle(), (EPISODES, game.max_steps, game.actions))
    made = (_play(game, first, "Random actions", np.stack(random)), _play(game, first, "Doing nothing", idle))
    run.storage.put(KEY, sealed(_what(run) | {"baselines": [asdict(one) for one in made]}, KEY))
    return made


def _numbers() -> range:
    return range(EPISODES)


def _what(run: Run) -> dict[str, object]:
    game = load(run.config.game)
    return {"game": f"{game.name} {game.version}, {game.max_steps} steps", "first": run.config.score.seed}


def _play(game: Game, first: int, name: str, scripts: np.ndarray) -> Baseline:
    """Scripts are (E, T, A). Physics, rewards and ends are the same with fast rendering."""
    environments = [game.make() for _ in _numbers()]
    try:
        seeds = [test_episode(first + number) for number in _numbers()]
        played = play(environments, seeds, ScriptedPolicy(scripts), game.max_steps)
    finally:
        for environment in environments:
            environment.close()
    result = mean_of([episode.score for episode in played])
    return Baseline(name, result.mean, result.std, result.error, EPISODES, game.max_steps)
