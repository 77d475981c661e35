"""Evolution and score as stages: the same theta from any pool and after any kill; scores from unseen episodes alone."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from processes import Job

from wm.agents.artifacts import load_models, load_theta
from wm.agents.trained import of_run
from wm.config.presets import PRESETS
from wm.config.schema import Config
from wm.dream.starts import any_frames, input_sizes, starts_of
from wm.envs import load
from wm.envs.carracing import CarRacing
from wm.errors import UserError
from wm.evolution.cma_es import Evolution
from wm.evolution.components import inputs_while_driving, principal_components
from wm.evolution.evaluation import GameUnit
from wm.evolution.objective import clipped, most_telling
from wm.evolution.units import game_units, tracks_of, validation_units
from wm.models.build import controller_of
from wm.pool import LocalPool
from wm.runs.datasets import latents_of
from wm.runs.manifest import Manifest
from wm.runs.run import Run, open_existing, start_run
from wm.seeds import TEST, TRAINING, VALIDATION, training_episode
from wm.stages.evolve import evolve
from wm.stages.score import score
from wm.stages.warm_start import first_distribution

TINY = PRESETS["tiny"]


def evolved(uri: str | Path) -> Manifest:
    run = open_existing(str(uri))
    manifest = load_models(run.config, run)[0].manifest()
    assert manifest is not None
    return manifest


def begin(config: Config, run: Run) -> Evolution:
    agent = of_run(run)
    return first_distribution(config, run, agent.vision, agent.memory)[0]


def games(config: Config, generation: int, thetas: np.ndarray) -> Iterator[GameUnit]:
    return game_units(config, 1, generation, thetas, tracks_of(config, 1, generation))


def history(uri: str | Path) -> dict[int, dict[str, Any]]:
    stage = load_models(open_existing(str(uri)).config, open_existing(str(uri)))[0]
    lines = Path(uri, stage.key("metrics.jsonl")).read_text().splitlines()
    return {row["generation"]: row for row in map(json.loads, lines)}


def test_any_pool_and_any_kill_give_the_same_theta(
    tiny: Run, copy: Callable[..., Path], job: Callable[..., Job]
) -> None:
    """Three generations on two workers and a fourth on one; against four in a process that is killed in between."""
    on_ray, alone = copy(), copy("evolve", "score")
    further = job("evolve", "--run", on_ray, "--generations", 4, "--workers.count", 1)
    words = ("evolve", "--run", alone, "--generations", 4, "--local")
    for generation in (1, 3):
        reached = f"*/checkpoints/step-{generation:010d}-*"
        job(*words).kill_when(lambda reached=reached: any((alone / "evolve").glob(reached)))
        assert load_models(open_existing(str(alone)).config, open_existing(str(alone)))[0].manifest() is None
    last = job(*words)
    assert last.wait() == 0, last.stderr
    assert "evolve goes on from generation 3" in last.stderr
    assert further.wait() == 0, further.stderr
    ours, theirs = history(alone), history(on_ray)
    assert sorted(ours) == sorted(theirs) == [1, 2, 3, 4]
    for generation in ours:
        for name in ("theta_sha256", "env_steps", "best", "mean", "worst", "sigma"):
            assert ours[generation][name] == theirs[generation][name], (generation, name)
    assert ours[4]["validation"] == theirs[4]["validation"]
    assert len({row["theta_sha256"] for row in ours.values()}) == 4
    assert ours[3]["theta_sha256"] == evolved(tiny.uri).metrics["theta_sha256"]
    assert last.summary["stages"]["evolve"]["theta_sha256"] == ours[4]["theta_sha256"]
    assert last.summary["stages"]["evolve"]["generation"] == 4


def test_what_is_kept_is_the_best_validated_mean(tiny: Run) -> None:
    made, rows = evolved(tiny.uri), history(tiny.uri)
    validated = {generation: row["validation"] for generation, row in rows.items() if "validation" in row}
    assert sorted(validated) == [2, 3]
    assert made.metrics["best_generation"] == max(validated, key=lambda generation: validated[generation])
    assert made.metrics["best_validation"] == max(validated.values())
    assert load_theta(made).shape == (controller_of(TINY).size,)
    assert made.metrics["env_steps"] == rows[3]["env_steps"] > 0


def test_tensorboard_reads_the_curves(tiny: Run) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    stage = load_models(TINY, tiny)[0]
    events = EventAccumulator(str(Path(tiny.uri, stage.folder))).Reload()
    assert [point.step for point in events.Scalars("evolve/mean")] == [1, 2, 3]
    assert [point.step for point in events.Scalars("evolve/validation")] == [2, 3]


def test_a_generation_plays_the_same_fresh_tracks_for_all() -> None:
    config = replace(TINY, evolve=replace(TINY.evolve, population=5, episodes=3, unit_episodes=4))
    thetas = np.arange(5)[:, None].repeat(2, axis=1).astype(float)
    played: dict[int, list[int]] = {}
    for unit in games(config, 7, thetas):
        assert len(unit.seeds) == len(unit.owner) <= 4
        for owner, seed in zip(unit.owner, unit.seeds, strict=True):
            played.setdefault(int(unit.thetas[owner][0]), []).append(seed)
    assert sorted(played) == [0, 1, 2, 3, 4]
    assert all(seeds == played[0] for seeds in played.values())
    assert len(set(played[0])) == 3
    assert min(played[0]) >= TRAINING
    following = {seed for unit in games(config, 8, thetas) for seed in unit.seeds}
    assert not following & set(played[0])


def test_validation_plays_whole_episodes_of_its_own_range() -> None:
    cut = replace(TINY, evolve=replace(TINY.evolve, steps=500))
    assert {unit.steps for unit in games(cut, 0, np.zeros((4, 2)))} == {500}
    units = list(validation_units(cut, np.zeros(2), "validation"))
    assert [seed for unit in units for seed in unit.seeds] == [VALIDATION, VALIDATION + 1]
    assert {(unit.patience, unit.steps) for unit in units} == {(0, 1000)}


def test_it_can_begin_where_another_run_ended(tiny: Run, tmp_path: Path) -> None:
    config = replace(TINY, evolve=replace(TINY.evolve, init=tiny.uri))
    begun = begin(config, tiny)
    assert np.array_equal(begun.mean, load_theta(evolved(tiny.uri)))
    assert begun.sigma == evolved(tiny.uri).metrics["sigma"] != TINY.evolve.sigma0
    assert not begin(TINY, tiny).mean.any()
    assert begin(replace(config, evolve=replace(config.evolve, init_sigma=0.01)), tiny).sigma == 0.01
    larger = replace(config, controller=replace(TINY.controller, layer=4))
    with pytest.raises(UserError, match="start from a run of the same sizes"):
        begin(larger, tiny)
    unfinished = start_run(str(tmp_path), "tiny", replace(TINY, evolve=replace(TINY.evolve, seed=9)), base=tiny.uri)
    with pytest.raises(UserError, match=f"no complete evolve in {tmp_path} to start from"):
        begin(replace(TINY, evolve=replace(TINY.evolve, init=unfinished.uri)), tiny)


def test_it_evolves_in_the_dream(tiny: Run, tmp_path: Path, job: Callable[..., Job]) -> None:
    uri = tmp_path / "dream"
    words = ("--in", "dream", "--dream-steps", 30, "--generations", 2, "--sigma0", 0.5)
    words += ("--sigma-decay", 0.125, "--local")
    dreamt = job("evolve", "tiny", "--run", uri, "--base", tiny.uri, *words)
    assert dreamt.wait() == 0, dreamt.stderr
    rows = history(uri)
    assert [row["env_steps"] for row in rows.values()] == [240, 480]  # 4 candidates, 2 dreams each, 30 steps
    assert rows[2]["theta_sha256"] != history(tiny.uri)[2]["theta_sha256"]
    assert (rows[1]["sigma"], rows[2]["sigma"]) == pytest.approx((0.5 / 8, 0.5 / 64), rel=0.5)
    assert {key.split("/")[0] for key in open_existing(str(uri)).storage.sizes()} == {"config.json", "evolve"}
    assert evolved(uri).inputs == evolved(tiny.uri).inputs  # the base's V and M


@pytest.mark.parametrize("latent", ["mu", "z"])
def test_who_dreams_with_other_eyes_is_told(
    latent: Any, tiny: Run, tmp_path: Path, pool: LocalPool, caplog: pytest.LogCaptureFixture
) -> None:
    section = replace(TINY.evolve, where="dream", dream_steps=5, dream_lap=True, generations=1, validation_episodes=1)
    config = replace(TINY, evolve=section, controller=replace(TINY.controller, latent=latent))
    evolve(start_run(str(tmp_path), "tiny", config, base=tiny.uri), pool)
    assert ("say --controller.latent z" in caplog.text) == (latent == "mu")


def test_dreams_may_begin_anywhere_as_the_agent_would_stand_there(tiny: Run, tmp_path: Path, pool: LocalPool) -> None:
    section = replace(
        TINY.evolve, where="dream", dream_starts="any", dream_steps=20, generations=1, validation_episodes=1
    )
    config = replace(TINY, evolve=section)
    trained = of_run(tiny)
    vision = tiny.stage("vision").manifest()
    data = latents_of(tiny.stage("latents", of=vision.digest).manifest())
    starts = starts_of(config, tiny, trained.memory)
    assert len(starts.mu) == data.lengths.sum()  # there are no more
    for frame, (episode, step) in {0: (0, 0), 7: (0, 7), 3 * 40 + 39: (3, 39)}.items():
        found = data.read(episode, ["mu", "action"])
        state = trained.memory.initial(1)
        for z, a in zip(found["mu"][:step], found["action"][:step], strict=True):
            state = trained.memory.advance(torch.tensor(z)[None], torch.tensor(a)[None], state)
        assert np.array_equal(starts.mu[frame], found["mu"][step])
        np.testing.assert_allclose(starts.memories[frame], torch.cat(state, dim=1)[0].detach().numpy(), atol=1e-5)
    last = any_frames(data, trained.memory, 10**6, np.random.default_rng(1), last=1)  # as after a round of one episode
    assert np.array_equal(last.mu, starts.mu[-int(data.lengths[-1]) :])
    np.testing.assert_allclose(last.memories, starts.memories[-len(last.mu) :], atol=1e-5)
    first = starts_of(TINY, tiny, trained.memory)
    assert first.memories is None
    assert len(first.mu) == 4
    made = evolve(start_run(str(tmp_path), "tiny", config, base=tiny.uri), pool)
    assert made.metrics["env_steps"] == 4 * 2 * 20


def test_large_numbers_get_small_weights(tiny: Run, tmp_path: Path, pool: LocalPool) -> None:
    """Scaled, the candidates' weights of a number are as small as it is large; the sigma of others counts otherwise."""
    config = replace(TINY, evolve=replace(TINY.evolve, scaled=True, generations=1, validation_episodes=1))
    memory = of_run(tiny).memory
    sizes = input_sizes(config, tiny, memory)
    assert sizes.shape == (32 + 2 * 32,)
    vision = tiny.stage("vision").manifest()
    seen = latents_of(tiny.stage("latents", of=vision.digest).manifest()).read(0, ["mu", "logvar"])
    z = np.sqrt((seen["mu"] ** 2 + np.exp(seen["logvar"])).mean(axis=0))
    np.testing.assert_allclose(sizes[:32], z, rtol=0.5)  # an episode of four
    candidates = begin(config, tiny).ask() / begin(TINY, tiny).ask()
    scale = controller_of(config).scale(sizes[: 2 * 32])
    np.testing.assert_allclose(candidates, np.broadcast_to(scale, candidates.shape))
    made = evolve(start_run(str(tmp_path), "tiny", config, base=tiny.uri), pool)
    assert made.extent == 1
    with pytest.raises(UserError, match="another scale"):
        begin(replace(TINY, evolve=replace(TINY.evolve, init=str(tmp_path))), tiny)


def test_components_are_of_what_c_sees_as_it_drives(tiny: Run, tmp_path: Path, pool: LocalPool) -> None:
    """Meanwhile, each moves its action by a deviation of 1 around none, and none like another."""
    section = replace(TINY.evolve, init=tiny.uri, init_sigma=0.01, components=3, generations=1, steps=40)
    config, agent = replace(TINY, evolve=section), of_run(tiny)
    seen, cost_of = inputs_while_driving(config, agent.vision, agent.memory, agent.theta)
    assert seen.shape == (cost_of, 2 * 32)
    mean, components = principal_components(seen, 3)
    first = agent.game.make().reset(seed=training_episode(1, "components", 0))[0]
    z = agent.vision.encode(torch.from_numpy(first)[None])[0][0]
    np.testing.assert_allclose(seen[0], [*z.detach().numpy(), *np.zeros(32)], atol=1e-4)  # h is empty at first
    moves = (seen - mean) @ components.T
    np.testing.assert_allclose(np.cov(moves.T, bias=True), np.eye(3), atol=1e-4)
    np.testing.assert_allclose(moves.mean(axis=0), 0, atol=1e-4)
    begun = begin(config, tiny)
    np.testing.assert_array_equal(begun.mean, agent.theta)
    assert np.linalg.matrix_rank(begun.ask() - agent.theta) == TINY.evolve.population
    assert begun.axes.shape == (3 * 4, controller_of(config).size)
    made = evolve(start_run(str(tmp_path), "tiny", config, base=tiny.uri), pool)
    assert made.extent == 1
    assert history(tmp_path)[1]["env_steps"] > cost_of
    with pytest.raises(UserError, match="another scale"):
        begin(replace(TINY, evolve=replace(TINY.evolve, init=str(tmp_path))), tiny)
    with pytest.raises(UserError, match="no 99 principal components"):
        principal_components(seen, 99)


def test_hard_tracks_are_those_with_a_hairpin() -> None:
    game = load("car-racing")
    config = replace(TINY, evolve=replace(TINY.evolve, episodes=4, population=4, hardness=0.26))
    easy, hard, again = (
        tracks_of(one, 1, 3) for one in (replace(config, evolve=replace(config.evolve, hardness=0.0)), config, config)
    )
    assert hard == again
    assert min(map(game.hardness, hard)) >= 0.26 > min(map(game.hardness, easy))
    env = game.make()
    for seed in hard[:2]:  # the direction from tile to tile, as the track's own points have it
        env.reset(seed=seed)
        points = np.array(env.unwrapped.track)[:, 2:]
        runs = np.unwrap(np.arctan2(*np.roll(points, -1, axis=0).T - points.T))
        assert np.abs(runs[8:] - runs[:-8]).max() / 8 == pytest.approx(game.hardness(seed), abs=0.05)
    with pytest.raises(UserError, match=r"say less than --evolve.hardness 3\.0"):
        tracks_of(replace(config, evolve=replace(config.evolve, hardness=3.0)), 1, 3)


def test_no_episode_counts_by_more_than_the_cut() -> None:
    """Who crashes once is not behind who drives everywhere a little worse; without a cut it is."""
    scores = np.array([[900.0, 880.0, 300.0], [880.0, 860.0, 880.0], [890.0, 870.0, 890.0], [np.nan, 870.0, 880.0]])
    np.testing.assert_allclose(clipped(scores, 15.0).mean(axis=1), [5 / 3, -20 / 3, 10 / 3, np.nan])
    np.testing.assert_array_equal(clipped(scores, 0.0), scores)


def test_tracks_that_tell_candidates_apart_are_met_again(tiny: Run, tmp_path: Path, pool: LocalPool) -> None:
    rows = [{"tracks": [1, 2, 3], "told": [5.0, 9.0, 9.0]}, {}, {"tracks": [2, 4], "told": [1.0, 5.0]}]
    assert most_telling(rows) == [3, 1, 4, 2]  # 2 has told little since
    config = replace(
        TINY, evolve=replace(TINY.evolve, generations=3, population=4, episodes=4, again=0.5, cut=100.0, seed=1)
    )
    run = start_run(str(tmp_path), "tiny", config, base=tiny.uri)
    evolve(run, pool)
    met = history(tmp_path)
    fresh = [set(tracks_of(config, 2, generation)) for generation in range(3)]
    assert set(met[1]["tracks"]) == fresh[0]
    for generation in (2, 3):
        earlier = [met[number] for number in range(1, generation)]
        assert met[generation]["tracks"][:2] == most_telling(earlier)[:2]
        assert len(set(met[generation]["tracks"][2:]) & fresh[generation - 1]) == 2
        assert all(spread >= 0 for spread in met[generation]["told"])


def test_what_was_dreamt_goes_on_in_the_real_game(tiny: Run, tmp_path: Path, pool: LocalPool) -> None:
    """Evolved in the dream first, then, from its mean and sigma, in the game."""
    short = replace(TINY.evolve, validation_episodes=1)
    dream = replace(TINY, evolve=replace(short, where="dream", dream_steps=20, generations=2))
    dreamt = evolve(start_run(str(tmp_path / "dream"), "tiny", dream, base=tiny.uri), pool)
    section = replace(short, init=str(tmp_path / "dream"), generations=1, validate_every=1)
    real = replace(TINY, evolve=section)
    tuned = evolve(start_run(str(tmp_path / "real"), "tiny", real, base=tiny.uri), pool)
    assert tuned.inputs == dreamt.inputs  # the same V and M
    moved = np.linalg.norm(load_theta(tuned) - load_theta(dreamt))
    assert 0 < moved < 5 * dreamt.metrics["sigma"] * np.sqrt(len(load_theta(dreamt)))


def scored(run: Run) -> Manifest:
    manifest = run.stage("score", of=evolved(run.uri).digest).manifest()
    assert manifest is not None
    return manifest


def test_scores_are_of_test_episodes_in_the_unmodified_game(
    tiny: Run, copy: Callable[..., Path], pool: LocalPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And more of them leave the earlier ones as they are."""
    folder = copy()
    files = {path: path.stat() for path in (folder / "score").rglob("0*.json")}
    assert len(files) == 2
    games: list[bool] = []
    make = CarRacing.make
    monkeypatch.setattr(CarRacing, "make", lambda self, exact=False: games.append(exact) or make(self, exact))
    config = replace(TINY, score=replace(TINY.score, episodes=3))
    more = score(start_run(str(folder), "tiny", config), pool)
    assert games == [True]
    before = scored(tiny).content["episodes"]
    assert [episode["seed"] for episode in more.content["episodes"]] == [TEST, TEST + 1, TEST + 2]
    assert more.content["episodes"][:2] == before
    for path, stat in files.items():
        assert (path.stat().st_ino, path.stat().st_mtime_ns) == (stat.st_ino, stat.st_mtime_ns)
    scores = [episode["score"] for episode in more.content["episodes"]]
    assert more.metrics["score"] == pytest.approx(np.mean(scores))
    assert more.metrics["std"] == pytest.approx(np.std(scores, ddof=1))
    assert more.metrics["se"] == pytest.approx(np.std(scores, ddof=1) / np.sqrt(3))
    assert (more.metrics["episodes"], more.metrics["first_seed"]) == (3, TEST)
    assert all(episode["steps"] == 1000 or episode["terminated"] for episode in more.content["episodes"])


def test_there_is_no_score_without_a_complete_evolution(copy: Callable[..., Path], pool: LocalPool) -> None:
    folder = copy()
    config = replace(TINY, evolve=replace(TINY.evolve, generations=4))
    run = start_run(str(folder), "tiny", config)
    with pytest.raises(UserError, match=f"no complete evolve in {folder}: run `python -m jobs.evolve --run {folder}`"):
        score(run, pool)
