"""Films of an agent, in the real game and in the dream."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from processes import Job
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from wm.agents.trained import best_so_far
from wm.errors import UserError
from wm.runs.run import Run
from wm.visuals.film import encoded, side_by_side
from wm.visuals.replay import Scene, dreamt, real


def pictures(path: Path) -> list[np.ndarray]:
    if path.suffix == ".mp4":
        video, found = cv2.VideoCapture(str(path)), []
        while (read := video.read())[0]:
            found.append(read[1])
        return found
    good, animation = cv2.imreadanimation(str(path))
    assert good
    return list(animation.frames)


def test_the_film_of_an_episode_is_written_into_the_run(copy: Callable[..., Path], job: Callable[..., Job]) -> None:
    uri = copy()
    made = job("watch", "--run", uri, "--seed", 3, "--steps", 12)
    assert made.wait() == 0, made.stderr
    path = uri / "films" / "real-3.mp4"
    assert made.summary["film"] == str(path)
    assert made.summary["bytes"] == path.stat().st_size
    shown = pictures(path)
    assert len(shown) == 6  # every second step
    assert shown[0].shape[1] == 480
    assert np.abs(shown[0].astype(float) - shown[-1]).mean() > 1  # something moves
    [film] = EventAccumulator(str(uri / "films")).Reload().Images("film/real-3")
    assert film.encoded_image_string[:4] == b"GIF8"


@pytest.mark.parametrize("suffix", ["webp", "gif"])
def test_the_film_of_a_dream_is_written_to_a_file(
    tiny: Run, tmp_path: Path, job: Callable[..., Job], suffix: str
) -> None:
    path = tmp_path / f"dream.{suffix}"
    made = job("watch", "--run", tiny.uri, "--in", "dream", "--steps", 8, "--tau", 0.5, "--every", 1, "--to", path)
    assert made.wait() == 0, made.stderr
    assert len(pictures(path)) == 8


def test_dream_and_game_side_by_side(tiny: Run, tmp_path: Path, job: Callable[..., Job]) -> None:
    path = tmp_path / "both.webp"
    made = job("watch", "--run", tiny.uri, "--in", "both", "--steps", 6, "--tau", 0.1, "--every", 1, "--to", path)
    assert made.wait() == 0, made.stderr
    shown = pictures(path)
    assert len(shown) == 6
    assert shown[0].shape[1] == 480 + 6 + 480


def test_panes_have_one_size_and_the_shorter_episode_says_that_it_ended() -> None:
    def scenes(picture: np.ndarray, steps: int) -> list[Scene]:
        return [Scene(step, 0.0, np.zeros(1), (("it", picture),)) for step in range(steps)]

    dream, game = np.full((64, 64, 3), 200, np.uint8), np.full((400, 600, 3), 100, np.uint8)
    both = list(side_by_side(scenes(dream, 2), scenes(game, 3)))
    assert {one.shape for one in both} == {(24 + 320, 480 + 6 + 480, 3)}
    middle = [(int(one[60, 100, 0]), int(one[60, 586, 0])) for one in both]
    assert middle == [(200, 100), (200, 100), (100, 100)]  # dimmed once it has ended
    assert (both[1][24:, :480] == 200).mean() > 0.95  # no black area


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seed", "-1"], "--seed must be in [0, 536870911], got -1"),
        (["--every", "0"], "--every 1 or more"),
        (["--in", "dream", "--tau", "0"], "--tau must be above 0, got 0.0"),
        (["--tau", "1"], "add --in dream or --in both"),
        (["--to", "film.avi"], "--to must end in .mp4, .webp, .gif, got film.avi"),
        (["--to", "/proc/such/film.gif"], "can't write /proc/such/film.gif"),
        (["--in", "sleep"], "invalid choice"),
    ],
)
def test_user_errors(tiny: Run, job: Callable[..., Job], words: list[str], message: str) -> None:
    made = job("watch", "--run", tiny.uri, *words)
    assert made.wait() == 2
    assert message in made.stderr
    assert "Traceback" not in made.stderr


def test_without_an_agent_the_error_names_the_missing_job(copy: Callable[..., Path], job: Callable[..., Job]) -> None:
    uri = copy("score", "evolve")
    made = job("watch", "--run", uri)
    assert made.wait() == 2
    assert f"python -m jobs.evolve --run {uri}" in made.stderr


def test_the_dream_next_to_the_game_starts_from_the_frame_of_the_game(tiny: Run) -> None:
    scenes = list(real(best_so_far(tiny), seed=0, steps=8, awake=4))
    names = [[name for name, _ in scene.views] for scene in scenes]
    assert names[0] == ["the game", "V sees"]
    assert names[3] == ["the game", "V sees", "M expected"]
    assert names[4] == names[-1] == ["the game", "V sees", "M expected", "M dreams"]
    views = dict(scenes[4].views)
    assert np.array_equal(views["V sees"], views["M dreams"])
    assert not np.array_equal(dict(scenes[5].views)["M dreams"], views["M dreams"])
    assert views["the game"].shape == (400, 600, 3)  # the game's own picture


def test_the_film_shows_the_scored_episode(tiny: Run) -> None:
    """Recording a film does not change the episode."""
    from wm.envs.rollout import play

    agent = best_so_far(tiny)
    scenes = list(real(agent, seed=5, steps=20))
    played: list[float] = []
    driver = agent.agent()
    play([agent.game.make(exact=True)], [5], driver, 20, record=lambda *step: played.append(step[3]))
    assert [round(scene.score, 6) for scene in scenes] == [round(sum(played[:at]), 6) for at in range(20)]


def test_a_seed_gives_the_same_dream_each_time(tiny: Run) -> None:
    agent = best_so_far(tiny)
    one, again, other = (list(dreamt(agent, seed, 5)) for seed in (1, 1, 2))
    assert np.array_equal(one[4].views[0][1], again[4].views[0][1])
    assert not np.array_equal(one[4].views[0][1], other[4].views[0][1])


def test_unknown_film_formats_are_rejected() -> None:
    with pytest.raises(UserError, match="webp"):
        encoded([np.zeros((8, 8, 3), np.uint8)], "avi", 25)
