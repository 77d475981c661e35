"""The agents that come with the project are small, whole, and drive as their cards say."""

import numpy as np
import pytest

from wm.agents.card import ORIGINS
from wm.agents.files import SHIPPED, load_agent
from wm.envs.rollout import play
from wm.seeds import test_episode as episode_seed

# The mean of so many episodes of the unmodified game is above this. Random driving gets about -74, random play of Doom
# 210; the scores of Doom's episodes differ much, 87 to 2,100.
LEAST = {"car-racing": (1, 400), "doom": (8, 400)}
NAMES = sorted(path.stem for path in SHIPPED.glob("*.md"))


def test_each_has_a_floor_to_be_tested_against() -> None:
    assert sorted(LEAST) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_it_is_small_and_its_card_says_how_it_scores(name: str) -> None:
    assert sum(path.stat().st_size for path in SHIPPED.glob(f"{name}*")) < 12e6
    card = (SHIPPED / f"{name}.md").read_text()
    for part in ("## Score", "Environment steps", "The worst 1%"):
        assert part in card


@pytest.mark.parametrize("name", NAMES)
def test_it_tells_nobody_where_it_was_made(name: str) -> None:
    card = load_agent(name).card
    origins = [made["config"].get(path, "") for run in card["runs"] for made in run["made"] for path in ORIGINS]
    assert any(origins)
    assert not any("/" in uri for uri in origins)


@pytest.mark.parametrize("name", NAMES)
def test_it_plays_the_unmodified_game(name: str) -> None:
    agent, (episodes, least) = load_agent(name), LEAST[name]
    games = [agent.game.make(exact=True) for _ in range(episodes)]
    played = play(
        games, [episode_seed(number) for number in range(episodes)], agent.agent(episodes), agent.game.max_steps
    )
    assert np.mean([one.score for one in played]) > least
