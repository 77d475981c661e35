"""The VAE-GAN as the V of a run: the whole pipeline, kill and resume, detection of collapse, and comparison of runs."""

import json
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from processes import Job
from tensors import unpacked

from wm.agents.artifacts import load_vision
from wm.config.presets import PRESETS
from wm.envs import load
from wm.errors import Failure, UserError
from wm.pool import LocalPool
from wm.report.compare_data import groups, over_seeds
from wm.runs.checkpoints import Checkpoints
from wm.runs.datasets import rollouts_of
from wm.runs.manifest import Manifest
from wm.runs.run import Run, open_existing, start_run
from wm.stages.vision import train_vision
from wm.training.vaegan import VaeGanLearner

TINY = PRESETS["tiny"]
GAN = replace(TINY, vision=replace(TINY.vision, kind="vaegan", gan_ramp=3))
FLAGS = ("--vision.kind", "vaegan", "--vision.gan-ramp", 3, "--local")


@pytest.fixture(scope="module")
def gan(tiny: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A whole run with the rollouts of `tiny`. Read only."""
    folder = tmp_path_factory.mktemp("gan")
    job = Job(folder, "pipeline", "tiny", "--run", folder / "run", "--base", tiny.uri, *FLAGS)
    assert job.wait() == 0, job.stderr
    assert list(job.summary["stages"]) == ["collect", "vision", "latents", "memory", "evolve", "score"]
    return open_existing(str(folder / "run"))


def made(run: Run) -> Manifest:
    return run.need("vision")


def learner(run: Run, **changes: object) -> VaeGanLearner:
    section = replace(GAN.vision, **changes)
    return VaeGanLearner(section, load(GAN.game), GAN.seed, rollouts_of(run.need("collect")), "cpu")


def last_state(run: Run) -> dict[str, torch.Tensor]:
    found = Checkpoints(run.storage, "vision/checkpoints").newest()
    assert found is not None
    assert found[1]["step"] == 6
    return found[0]


def test_all_later_stages_work_with_it(gan: Run, tiny: Run) -> None:
    gan_weights, vae_weights = (unpacked(made(run).read(made(run).content["weights"]))[0] for run in (gan, tiny))
    shapes = [{name: value.shape for name, value in weights.items()} for weights in (gan_weights, vae_weights)]
    assert shapes[0] == shapes[1]
    assert gan.stage("score").complete() is not None
    mu, _ = load_vision(made(gan)).encode(torch.zeros(1, 64, 64, 3, dtype=torch.uint8))
    assert mu.shape == (1, 32)
    metrics = made(gan).metrics
    assert metrics["best_step"] == 6  # the newest weights are the result
    assert {"mse_car", "held_out_gan", "held_out_variety", "likeness", "decoder_turns"} <= metrics.keys()


def test_a_killed_and_resumed_training_ends_in_the_same_bits(
    gan: Run, tiny: Run, tmp_path: Path, job: Callable[..., Job]
) -> None:
    words = ("vision", "tiny", "--run", tmp_path / "run", "--base", tiny.uri, *FLAGS)
    words = (*words, "--workers.checkpoint-seconds", 0.001)
    killed = job(*words)

    def reached() -> bool:
        names = [path.name for path in (tmp_path / "run" / "vision" / "checkpoints").glob("step-*.safetensors")]
        return any(int(name.split("-")[1]) >= 2 for name in names)

    killed.until(reached)
    killed.send(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    last = job(*words)
    assert last.wait() == 0, last.stderr
    assert "vision resumes from step" in last.stderr
    run = open_existing(str(tmp_path / "run"))
    assert made(run).digest == made(gan).digest
    resumed, uninterrupted = last_state(run), last_state(gan)
    assert any(name.startswith("discriminator.convolutions") for name in resumed)
    assert any(name.startswith("adam_discriminator.0.") for name in resumed)
    assert all(torch.equal(resumed[name], uninterrupted[name]) for name in resumed.keys() | uninterrupted.keys())


def test_it_starts_from_a_vaes_weights_and_a_new_discriminator(tiny: Run) -> None:
    own = learner(tiny, init=tiny.uri)
    weights = unpacked(made(tiny).read(made(tiny).content["weights"]))[0]
    state = own.model.state_dict()
    assert all(torch.equal(state[name], weights[name]) for name in weights)
    assert torch.equal(own.discriminator.verdict.weight, learner(tiny).discriminator.verdict.weight)


def test_losses_are_finite_in_half_precision(tiny: Run) -> None:
    half = learner(tiny, precision="bfloat16", batch=2)
    losses = half.step(5, next(half.batches(5)))
    assert all(bool(value.isfinite()) for value in losses.values())


@pytest.mark.parametrize(
    ("worst", "message"),
    [
        ({"held_out_gan": 0.01}, "the discriminator has won with a cross entropy of 0.010"),
        ({"held_out_variety": 0.02}, r"samples of the prior have 2.0% of the frames' variance"),
    ],
)
def test_a_collapse_stops_the_training(tiny: Run, worst: dict[str, float], message: str) -> None:
    own = learner(tiny)

    def rows(*steps: int) -> list[dict[str, float]]:
        return [{"step": step, "held_out_gan": 0.6, "held_out_variety": 1.0} | worst for step in steps]

    own.check_progress(rows(1, 2, 3, 4, 5))  # the first steps of the ramp do not count, then it takes three in a row
    own.check_progress([*rows(4, 5), {"step": 6, "held_out_gan": 0.6, "held_out_variety": 1.0}])
    with pytest.raises(Failure, match=rf"vision collapsed by step 6: {message}.*larger --vision.gamma than 0"):
        own.check_progress(rows(3, 4, 5, 6))


def test_a_collapse_is_detected_while_training(tiny: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All samples of the prior become the same; a healthy training passes the same check."""
    vision = replace(GAN.vision, steps=5, evaluate_steps=1, gan_ramp=1)
    config = replace(GAN, vision=vision)
    run = start_run(str(tmp_path / "run"), "tiny", config, base=tiny.uri)
    original = VaeGanLearner.step

    def step(self, number, batch):
        losses = original(self, number, batch)
        with torch.no_grad():
            self.model.widen.weight.zero_()
        return losses

    monkeypatch.setattr(VaeGanLearner, "step", step)
    with pytest.raises(Failure, match=r"vision collapsed by step 4: samples of the prior have 0.0%"):
        train_vision(run, LocalPool())
    assert run.stage("vision").manifest() is None


@pytest.mark.parametrize("name", ["gamma", "gan_ramp"])
def test_wrong_values_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"--vision.{name.replace('_', '-')} must be above 0, got 0"):
        replace(GAN.vision, **{name: 0}).check()


def test_compare_puts_two_kinds_of_v_next_to_each_other(
    gan: Run, tiny: Run, tmp_path: Path, job: Callable[..., Job]
) -> None:
    before = {run.uri: run.storage.sizes() for run in (gan, tiny)}
    compared = job("compare", "--runs", tiny.uri, gan.uri, "--to", tmp_path / "to")
    assert compared.wait() == 0, compared.stderr
    found = json.loads((tmp_path / "to" / "compare.json").read_text())["groups"]
    assert found == compared.summary["groups"]
    assert [group["runs"] for group in found] == [[tiny.uri], [gan.uri]]
    assert found[1]["name"].startswith("--vision.kind vaegan")
    for group in found:
        measured = group["measures"]
        assert {"sharpness", "ssim", "mse_road_edge", "active_units", "nll", "score", "score_se"} <= measured.keys()
        assert {"probe_speed", "probe_offset", "probe_curvature"} <= measured.keys()
        assert measured["sharpness"] > 0
        assert len(group["curve"]) == 2
    page = (tmp_path / "to" / "compare.html").read_text()
    for words in ("--vision.kind vaegan", "structural similarity", "Validation of the mean", "data:image/webp"):
        assert words in page
    assert before == {run.uri: run.storage.sizes() for run in (gan, tiny)}


def test_runs_with_other_held_out_frames_are_not_compared(tiny: Run, tmp_path: Path) -> None:
    config = replace(TINY, vision=replace(TINY.vision, held_out=2))
    other = start_run(str(tmp_path / "other"), "tiny", config, base=tiny.uri)
    with pytest.raises(UserError, match=r"hold out other frames: compare runs with the same rollouts \(--base\)"):
        groups([tiny, other])
    with pytest.raises(UserError, match="is named twice"):
        groups([tiny, tiny])


def test_runs_that_differ_in_the_seed_form_one_group(tiny: Run, tmp_path: Path) -> None:
    config = replace(TINY, evolve=replace(TINY.evolve, seed=1), score=replace(TINY.score, episodes=9))
    other = start_run(str(tmp_path / "seed"), "tiny", config, base=tiny.uri)
    config = replace(config, evolve=replace(config.evolve, sigma0=0.5))
    wider = start_run(str(tmp_path / "wider"), "tiny", config, base=tiny.uri)
    found = groups([tiny, wider, other])
    assert [[run.run.uri for run in group.runs] for group in found] == [[tiny.uri, other.uri], [wider.uri]]
    assert [group.name for group in found] == ["--evolve.sigma0 0.06", "--evolve.sigma0 0.5"]
    assert found[0].curve() == []  # one of its seeds has no generations
    assert over_seeds([4.0, 6.0, 8.0], alone=9.0) == (6.0, pytest.approx(2 / 3**0.5))
    assert over_seeds([4.0], alone=9.0) == (4.0, 9.0)
