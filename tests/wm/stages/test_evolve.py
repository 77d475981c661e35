"""Evolution and score as stages: any pool and any kill give the same theta; scores use unseen episodes only."""

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
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
from wm.evolution.components import inputs_while_driving
from wm.evolution.objective import most_telling
from wm.evolution.units import tracks_of
from wm.evolution.validations import has_settled
from wm.models.build import controller_of
from wm.pool import LocalPool
from wm.runs.datasets import latents_of
from wm.runs.manifest import Manifest
from wm.runs.run import Run, open_existing, start_run
from wm.seeds import TEST
from wm.stages.evolve import evolve
from wm.stages.score import score
from wm.stages.warm_start import first_distribution

TINY = PRESETS["tiny"]
GAME = load(TINY.game)


def evolved(uri: str | Path) -> Manifest:
    manifest = open_existing(str(uri)).stage("evolve").manifest()
    assert manifest is not None
    return manifest


def begin(config: Config, run: Run) -> Evolution:
    """The first distribution of a run with this config and the same models."""
    part = Run(run.storage, config, run.preset, run.base)
    return first_distribution(part, GAME, load_models(part)[0])[0]


def history(uri: str | Path) -> dict[int, dict[str, Any]]:
    stage = open_existing(str(uri)).stage("evolve")
    lines = Path(uri, stage.key("metrics.jsonl")).read_text().splitlines()
    return {row["generation"]: row for row in map(json.loads, lines)}


def test_any_pool_and_any_kill_give_the_same_theta(
    tiny: Run, copy: Callable[..., Path], job: Callable[..., Job]
) -> None:
    """Three generations on two workers and a fourth on one, compared with four in a process that is killed twice."""
    on_ray, alone = copy(), copy("evolve", "score")
    further = job("evolve", "--run", on_ray, "--generations", 4, "--workers.count", 1)
    words = ("evolve", "--run", alone, "--generations", 4, "--local")
    for generation in (1, 3):
        reached = f"*/checkpoints/step-{generation:010d}-*"
        job(*words).kill_when(lambda reached=reached: any((alone / "evolve").glob(reached)))
        assert open_existing(str(alone)).stage("evolve").manifest() is None
    last = job(*words)
    assert last.wait() == 0, last.stderr
    assert "evolve resumes from generation 3" in last.stderr
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


def test_the_result_is_the_best_validated_mean(tiny: Run) -> None:
    made, rows = evolved(tiny.uri), history(tiny.uri)
    validated = {generation: row["validation"] for generation, row in rows.items() if "validation" in row}
    assert sorted(validated) == [2, 3]
    assert made.metrics["best_generation"] == max(validated, key=lambda generation: validated[generation])
    assert made.metrics["best_validation"] == max(validated.values())
    assert load_theta(made).shape == (controller_of(TINY).size,)
    assert made.metrics["env_steps"] == rows[3]["env_steps"] > 0


def test_a_plateau_ends_an_evolution_at_the_same_generation_after_a_kill(
    tiny: Run, tmp_path: Path, job: Callable[..., Job]
) -> None:
    words = (
        "evolve",
        "tiny",
        "--base",
        tiny.uri,
        "--generations",
        40,
        "--plateau",
        1,
        "--validate-every",
        1,
        "--local",
    )
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    one = job(*words, "--local", "--run", undisturbed)
    job(*words, "--local", "--run", killed).kill_when(lambda: any((killed / "evolve").glob("*/checkpoints/step-*2-*")))
    again = job(*words, "--local", "--run", killed)
    assert one.wait() == again.wait() == 0, again.stderr
    rows = list(history(undisturbed).values())
    assert 3 <= len(rows) < 40
    settled = [has_settled(rows[:end], 1) for end in range(1, len(rows) + 1)]
    assert settled.index(True) + 2 == len(rows)  # the validation ran together with the next generation
    assert evolved(killed).digest == evolved(undisturbed).digest
    assert evolved(killed).metrics["generation"] == len(rows)


def test_an_evolution_ends_at_its_target(tiny: Run, tmp_path: Path) -> None:
    """At the mean of two validations."""

    def generations(target: float) -> int:
        config = replace(TINY, evolve=replace(TINY.evolve, validate_every=1, generations=6, target=target))
        run = start_run(str(tmp_path / f"target{target}"), "tiny", config, base=tiny.uri)
        return int(evolve(run, LocalPool()).metrics["generation"])

    assert generations(0.0) == generations(1_000.0) == 6
    scores = [row["validation"] for row in history(str(tmp_path / "target0.0")).values()]
    pairs = [(one + other) / 2 for one, other in pairwise(scores)]
    first = pairs.index(max(pairs)) + 2  # validations, and so generations
    assert first < 6
    assert generations(max(pairs)) == first + 1, "the validation ran together with the next generation"


def test_tensorboard_reads_the_metrics(tiny: Run) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(Path(tiny.uri, tiny.stage("evolve").folder))).Reload()
    assert [point.step for point in events.Scalars("rollout/ep_rew_mean")] == [1, 2, 3]
    assert [point.step for point in events.Scalars("eval/mean_reward")] == [2, 3]


def test_evolution_can_start_from_another_run(tiny: Run, tmp_path: Path) -> None:
    config = replace(TINY, evolve=replace(TINY.evolve, init=tiny.uri))
    begun = begin(config, tiny)
    assert np.array_equal(begun.mean, load_theta(evolved(tiny.uri)))
    assert begun.sigma == evolved(tiny.uri).metrics["sigma"] != TINY.evolve.sigma0
    assert not begin(TINY, tiny).mean.any()
    assert begin(replace(config, evolve=replace(config.evolve, init_sigma=0.01)), tiny).sigma == 0.01
    larger = replace(config, controller=replace(TINY.controller, layer=4))
    with pytest.raises(UserError, match="start from a run of the same sizes"):
        begin(larger, tiny)
    pedal = replace(config, controller=replace(TINY.controller, one_pedal=True))
    with pytest.raises(UserError, match=r"has two pedals: use the same --controller\.one-pedal here"):
        begin(pedal, tiny)
    unfinished = start_run(str(tmp_path), "tiny", replace(TINY, evolve=replace(TINY.evolve, seed=9)), base=tiny.uri)
    with pytest.raises(
        UserError, match=f"no completed evolve stage in {tmp_path} to start from: complete it, or remove --evolve.init"
    ):
        begin(replace(TINY, evolve=replace(TINY.evolve, init=unfinished.uri)), tiny)


def test_evolution_in_the_dream(tiny: Run, tmp_path: Path, job: Callable[..., Job]) -> None:
    uri = tmp_path / "dream"
    words = ("--in", "dream", "--dream-steps", 30, "--generations", 2, "--sigma0", 0.5, "--local")
    dreamt = job("evolve", "tiny", "--run", uri, "--base", tiny.uri, *words)
    assert dreamt.wait() == 0, dreamt.stderr
    rows = history(uri)
    assert [row["env_steps"] for row in rows.values()] == [240, 480]  # 4 candidates, 2 dreams each, 30 steps
    assert rows[2]["theta_sha256"] != history(tiny.uri)[2]["theta_sha256"]
    assert (rows[1]["sigma"], rows[2]["sigma"]) == pytest.approx((0.5, 0.5), rel=0.5)
    assert {key.split("/")[0] for key in open_existing(str(uri)).storage.sizes()} == {"config.json", "evolve"}
    assert evolved(uri).inputs == evolved(tiny.uri).inputs  # the base's V and M


@pytest.mark.parametrize("latent", ["mu", "z"])
def test_a_c_that_sees_samples_only_in_the_dream_is_warned(
    latent: Any, tiny: Run, tmp_path: Path, pool: LocalPool, caplog: pytest.LogCaptureFixture
) -> None:
    section = replace(TINY.evolve, where="dream", dream_steps=5, dream_lap=True, generations=1, validation_episodes=1)
    config = replace(TINY, evolve=section, controller=replace(TINY.controller, latent=latent))
    evolve(start_run(str(tmp_path), "tiny", config, base=tiny.uri), pool)
    assert ("consider --controller.latent z" in caplog.text) == (latent == "mu")


def test_dreams_can_start_from_any_frame_with_the_state_of_m_there(tiny: Run, tmp_path: Path, pool: LocalPool) -> None:
    section = replace(
        TINY.evolve, where="dream", dream_starts="any", dream_steps=20, generations=1, validation_episodes=1
    )
    config = replace(TINY, evolve=section)
    trained = of_run(tiny)
    latents = tiny.need("latents")
    data = latents_of(latents)
    starts = starts_of(config, latents, trained.memory)
    assert len(starts.mu) == data.lengths.sum()  # all there are
    for frame, (episode, step) in {0: (0, 0), 7: (0, 7), 3 * 40 + 39: (3, 39)}.items():
        found = data.read(episode, ["mu", "action"])
        state = trained.memory.initial(1)
        for z, a in zip(found["mu"][:step], found["action"][:step], strict=True):
            state = trained.memory.advance(torch.tensor(z)[None], torch.tensor(a)[None], state)
        assert np.array_equal(starts.mu[frame], found["mu"][step])
        np.testing.assert_allclose(starts.states[frame], torch.cat(state, dim=1)[0].detach().numpy(), atol=1e-5)
    last = any_frames(data, trained.memory, 10**6, np.random.default_rng(1), last=1)  # as in a round of one episode
    assert np.array_equal(last.mu, starts.mu[-int(data.lengths[-1]) :])
    np.testing.assert_allclose(last.states, starts.states[-len(last.mu) :], atol=1e-5)
    first = starts_of(TINY, latents, trained.memory)
    assert first.states is None
    assert len(first.mu) == 4
    made = evolve(start_run(str(tmp_path), "tiny", config, base=tiny.uri), pool)
    assert made.metrics["env_steps"] == 4 * 2 * 20


def test_scaled_weights_are_inverse_to_the_size_of_their_inputs(tiny: Run, tmp_path: Path, pool: LocalPool) -> None:
    """The sigma of a run that is not scaled can't be used, and vice versa."""
    config = replace(TINY, evolve=replace(TINY.evolve, scaled=True, generations=1, validation_episodes=1))
    memory = of_run(tiny).memory
    latents = tiny.need("latents")
    sizes = input_sizes(latents, memory, TINY.seed)
    assert sizes.shape == (32 + 2 * 32,)
    seen = latents_of(latents).read(0, ["mu", "logvar"])
    z = np.sqrt((seen["mu"] ** 2 + np.exp(seen["logvar"])).mean(axis=0))
    np.testing.assert_allclose(sizes[:32], z, rtol=0.5)  # of one episode in four
    candidates = begin(config, tiny).ask() / begin(TINY, tiny).ask()
    scale = controller_of(config).scale(sizes[: 2 * 32])
    np.testing.assert_allclose(candidates, np.broadcast_to(scale, candidates.shape))
    made = evolve(start_run(str(tmp_path), "tiny", config, base=tiny.uri), pool)
    assert made.extent == 1
    with pytest.raises(UserError, match="another scale"):
        begin(replace(TINY, evolve=replace(TINY.evolve, init=str(tmp_path))), tiny)


def test_evolution_along_components_varies_only_these_directions(tiny: Run, tmp_path: Path, pool: LocalPool) -> None:
    section = replace(TINY.evolve, init=tiny.uri, init_sigma=0.01, components=3, generations=1)
    config, agent = replace(TINY, evolve=section), of_run(tiny)
    _, steps = inputs_while_driving(GAME, agent.models, agent.theta, TINY.seed, section.patience)
    begun = begin(config, tiny)
    np.testing.assert_array_equal(begun.mean, agent.theta)
    assert np.linalg.matrix_rank(begun.ask() - agent.theta) == TINY.evolve.population
    assert begun.axes.shape == (3 * 4, controller_of(config).size)
    made = evolve(start_run(str(tmp_path), "tiny", config, base=tiny.uri), pool)
    assert made.extent == 1
    assert history(tmp_path)[1]["env_steps"] > steps  # those of the measurement count
    with pytest.raises(UserError, match="another scale"):
        begin(replace(TINY, evolve=replace(TINY.evolve, init=str(tmp_path))), tiny)


def test_tracks_with_the_largest_spread_are_replayed(tiny: Run, tmp_path: Path, pool: LocalPool) -> None:
    config = replace(
        TINY, evolve=replace(TINY.evolve, generations=3, population=4, episodes=4, again=0.5, cut=100.0, seed=1)
    )
    run = start_run(str(tmp_path), "tiny", config, base=tiny.uri)
    evolve(run, pool)
    rows = history(tmp_path)
    fresh = [set(tracks_of(config.evolve, GAME, 2, generation)) for generation in range(3)]
    assert set(rows[1]["tracks"]) == fresh[0]
    for generation in (2, 3):
        earlier = [rows[number] for number in range(1, generation)]
        assert rows[generation]["tracks"][:2] == most_telling(earlier)[:2]
        assert len(set(rows[generation]["tracks"][2:]) & fresh[generation - 1]) == 2
        assert all(spread >= 0 for spread in rows[generation]["spread"])


def test_evolution_in_the_dream_can_continue_in_the_real_game(tiny: Run, tmp_path: Path, pool: LocalPool) -> None:
    """It starts with the mean and sigma of the dream."""
    short = replace(TINY.evolve, validation_episodes=1)
    dream = replace(TINY, evolve=replace(short, where="dream", dream_steps=20, generations=2))
    dreamt = evolve(start_run(str(tmp_path / "dream"), "tiny", dream, base=tiny.uri), pool)
    section = replace(short, init=str(tmp_path / "dream"), generations=1, validate_every=1)
    real = replace(TINY, evolve=section)
    tuned = evolve(start_run(str(tmp_path / "real"), "tiny", real, base=tiny.uri), pool)
    assert tuned.inputs == dreamt.inputs  # V and M
    moved = np.linalg.norm(load_theta(tuned) - load_theta(dreamt))
    assert 0 < moved < 5 * dreamt.metrics["sigma"] * np.sqrt(len(load_theta(dreamt)))


def scored(run: Run) -> Manifest:
    manifest = run.stage("score", of=evolved(run.uri).digest).manifest()
    assert manifest is not None
    return manifest


def test_scores_use_test_episodes_of_the_unmodified_game(
    tiny: Run, copy: Callable[..., Path], pool: LocalPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More episodes keep the earlier ones."""
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


def test_a_score_needs_a_complete_evolution(copy: Callable[..., Path], pool: LocalPool) -> None:
    folder = copy()
    config = replace(TINY, evolve=replace(TINY.evolve, generations=4))
    run = start_run(str(folder), "tiny", config)
    with pytest.raises(UserError, match=rf"evolve is not complete in {folder} \(3 of 4\): run `python -m jobs.evolve"):
        score(run, pool)
