"""The agents that come with the project are small, whole, and drive as their cards say."""

import pytest

from wm.rollout import play
from wm.seeds import test_episode as episode_seed
from wm.trained import SHIPPED, load_trained

LEAST = {"car-racing": 400}  # in one episode of the unmodified game; a random driver gets about -74
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
def test_it_plays_the_unmodified_game(name: str) -> None:
    agent = load_trained(name)
    environment = agent.game.make(exact=True)
    (played,) = play([environment], [episode_seed(0)], agent.agent(), agent.game.max_steps)
    assert played.score > LEAST[name]
