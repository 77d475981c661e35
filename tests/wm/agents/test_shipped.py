"""The agents that come with the project are small and complete, and play as well as their cards say."""

import numpy as np
import pytest

from wm.agents.card import ORIGINS
from wm.agents.files import SHIPPED, load_agent
from wm.envs.rollout import play
from wm.seeds import test_episode as episode_seed

# (episodes, lower bound of their mean score in the unmodified game). A random policy scores about -74 in CarRacing and
# 210 in Doom, where the scores of episodes vary between 87 and 2,100.
BOUNDS = {"car-racing": (1, 400), "doom": (8, 400)}
NAMES = sorted(path.stem for path in SHIPPED.glob("*.md"))


def test_each_agent_has_a_bound() -> None:
    assert sorted(BOUNDS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_it_is_small_and_its_card_has_the_score(name: str) -> None:
    assert sum(path.stat().st_size for path in SHIPPED.glob(f"{name}*")) < 12e6
    card = (SHIPPED / f"{name}.md").read_text()
    for part in ("## Score", "Environment steps", "The worst 1%"):
        assert part in card


@pytest.mark.parametrize("name", NAMES)
def test_its_card_contains_no_paths(name: str) -> None:
    card = load_agent(name).card
    origins = [made["config"].get(path, "") for run in card["runs"] for made in run["made"] for path in ORIGINS]
    assert any(origins)
    assert not any("/" in uri for uri in origins)


@pytest.mark.parametrize("name", NAMES)
def test_it_plays_the_unmodified_game(name: str) -> None:
    agent, (episodes, bound) = load_agent(name), BOUNDS[name]
    games = [agent.game.make(exact=True) for _ in range(episodes)]
    played = play(
        games, [episode_seed(number) for number in range(episodes)], agent.agent(episodes), agent.game.max_steps
    )
    assert np.mean([one.score for one in played]) > bound
