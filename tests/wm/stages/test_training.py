"""Training of V and M as stages: resumed training is bit-identical, and nothing outdated is reused."""

import itertools
import json
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from processes import Job
from tensors import unpacked

from wm.config.fields import of_kind
from wm.config.presets import PRESETS
from wm.config.schema import Config
from wm.envs import load
from wm.errors import UserError
from wm.pool import LocalPool
from wm.runs.checkpoints import Checkpoints
from wm.runs.datasets import latents_of, own_rollouts
from wm.runs.manifest import Manifest
from wm.runs.run import Run, open_existing, start_run
from wm.runs.shards import DataSet
from wm.runs.storage import open_storage
from wm.stages.evolve import evolve
from wm.stages.latents import encode_rollouts
from wm.stages.memory import train_memory
from wm.stages.vision import train_vision
from wm.training.memory import MemoryLearner
from wm.training.vision import VisionLearner

TINY = PRESETS["tiny"]
STEPS = 9
FURTHER = replace(TINY, vision=replace(TINY.vision, steps=STEPS))
M_FURTHER = replace(TINY, memory=replace(TINY.memory, steps=STEPS))


def vision_of(run: Run) -> Manifest:
    manifest = run.stage("vision").manifest()
    assert manifest is not None
    return manifest


def memory_of(run: Run) -> Manifest:
    manifest = run.stage("memory", of=vision_of(run).digest).manifest()
    assert manifest is not None
    return manifest


def vision_learner(config: Config, data: DataSet) -> VisionLearner:
    return VisionLearner(config.vision, load(config.game), config.seed, data, "cpu")


def memory_learner(config: Config, run: Run) -> MemoryLearner:
    """It trains on the latents of this run."""
    return MemoryLearner(config.memory, of_kind(config, "bits"), latents_of(run.need("latents")), "cpu")


def test_scaled_rewards_count_in_units_of_their_variance(tiny: Run) -> None:
    clipped = replace(tiny.config, memory=replace(tiny.config.memory, reward_clip=0.5))
    plain = memory_learner(clipped, tiny)
    scaled = memory_learner(replace(clipped, memory=replace(clipped.memory, reward_scaled=True)), tiny)
    begins, lengths = plain.episodes.begins.tolist(), plain.episodes.lengths.tolist()
    rewards = plain.episodes.columns["reward"].clamp(-0.5, 0.5)
    seen = torch.cat([rewards[begins[one] : begins[one] + lengths[one]] for one in plain.training.tolist()])
    assert plain.reward_weight == 1.0
    assert scaled.reward_weight == pytest.approx(1 / float(seen.double().var(correction=0)))
    batch, _ = next(scaled.held_out())
    with torch.no_grad():
        ours, theirs = (learner.losses(batch) for learner in (scaled, plain))
    torch.testing.assert_close(ours["reward"], theirs["reward"] * scaled.reward_weight)
    torch.testing.assert_close(ours["nll"], theirs["nll"])


def same_weights(one: Manifest, other: Manifest) -> bool:
    a, b = (unpacked(made.read(made.content["weights"]))[0] for made in (one, other))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def stopped_at(job: Job, checkpoints: Checkpoints, step: int, number: signal.Signals = signal.SIGKILL) -> int:
    """Stop the job once it has a checkpoint of this step or a later one, and return its exit code."""

    def reached() -> bool:
        names = [key.rpartition("/")[2] for key in checkpoints.storage.sizes(checkpoints.folder)]
        return any(name.startswith("step-") and int(name.split("-")[1]) >= step for name in names)

    job.until(reached)
    job.send(number)
    return job.wait()


def last_state(folder: Path, stage: str) -> dict[str, torch.Tensor]:
    """Model and optimiser after the last step of the training."""
    found = Checkpoints(open_storage(str(folder)), f"{stage}/checkpoints").newest()
    assert found is not None
    assert found[1]["step"] == STEPS
    return found[0]


@pytest.fixture(scope="module")
def further(tiny: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The finished run with more steps of M, and then of V, without a kill. Read only."""
    folder = tmp_path_factory.mktemp("further") / "run"
    shutil.copytree(tiny.uri, folder)
    train_memory(start_run(str(folder), "tiny", M_FURTHER), LocalPool())
    both = replace(M_FURTHER, vision=FURTHER.vision)
    run = start_run(str(folder), "tiny", both)
    train_vision(run, LocalPool())
    return run


def test_resumed_training_of_v_is_bit_identical(
    further: Run, copy: Callable[..., Path], job: Callable[..., Job]
) -> None:
    folder = copy("vision", "latents", "memory", "evolve", "score")
    words = ("vision", "--run", folder, "--steps", STEPS, "--workers.checkpoint-seconds", 0.001, "--local")
    checkpoints = Checkpoints(open_storage(str(folder)), "vision/checkpoints")
    for step, number in ((1, signal.SIGKILL), (3, signal.SIGINT), (7, signal.SIGKILL)):
        assert stopped_at(job(*words), checkpoints, step, number) == (130 if number == signal.SIGINT else -number)
        assert open_existing(str(folder)).stage("vision").manifest() is None
    last = job(*words)
    assert last.wait() == 0, last.stderr
    assert "vision resumes from step" in last.stderr
    made = vision_of(open_existing(str(folder)))
    assert same_weights(made, vision_of(further))
    assert made.digest == vision_of(further).digest
    mine, undisturbed = last_state(folder, "vision"), last_state(Path(further.uri), "vision")
    assert mine.keys() == undisturbed.keys()
    assert all(torch.equal(mine[name], undisturbed[name]) for name in mine)


def test_resumed_training_of_m_is_bit_identical(
    tiny: Run, further: Run, copy: Callable[..., Path], job: Callable[..., Job]
) -> None:
    folder = copy("memory", "evolve", "score")
    stage = f"memory/{vision_of(tiny).digest[:12]}"
    words = ("memory", "--run", folder, "--steps", STEPS, "--workers.checkpoint-seconds", 0.001, "--local")
    for step in (2, 5):
        checkpoints = Checkpoints(open_storage(str(folder)), f"{stage}/checkpoints")
        assert stopped_at(job(*words), checkpoints, step) == -signal.SIGKILL
    last = job(*words)
    assert last.wait() == 0, last.stderr
    undisturbed = further.storage.get(f"{stage}/manifest-{STEPS:010d}.json") or b""
    assert memory_of(open_existing(str(folder))).content == json.loads(undisturbed)["content"]
    mine, other = last_state(folder, stage), last_state(Path(further.uri), stage)
    assert all(torch.equal(mine[name], other[name]) for name in mine.keys() | other.keys())


def test_nothing_made_with_an_earlier_v_is_used(further: Run, pool: LocalPool) -> None:
    assert vision_of(further).extent == STEPS
    assert further.storage.get("vision/manifest-0000000006.json")  # the old one is still there
    for stage, wants in ((train_memory, "latents"), (evolve, "memory")):
        with pytest.raises(UserError, match=rf"run `python -m jobs.{wants} --run {further.uri}`"):
            stage(further, pool)


def test_latents_of_another_v_are_made_again(further: Run, tmp_path: Path, pool: LocalPool) -> None:
    run = start_run(str(tmp_path / "derived"), "tiny", further.config, base=further.uri)
    latents = encode_rollouts(run, pool)
    assert latents.storage.uri == run.uri
    assert latents.content["starts"].startswith(f"latents/{vision_of(further).digest[:12]}/")
    of_the_old = [key for key in further.storage.sizes("latents") if key.endswith(".parquet")]
    assert len(of_the_old) == 2
    for record in latents.content["shards"]:
        assert latents.storage.get(record["key"]) not in [further.storage.get(key) for key in of_the_old]


def test_a_complete_stage_is_not_changed(tiny: Run, pool: LocalPool) -> None:
    before = tiny.storage.sizes()
    assert train_vision(tiny, pool) == vision_of(tiny)
    assert encode_rollouts(tiny, pool).digest == memory_of(tiny).inputs["latents"]
    assert train_memory(tiny, pool) == memory_of(tiny)
    assert tiny.storage.sizes() == before


def test_manifests_name_their_inputs(tiny: Run) -> None:
    rollouts = tiny.stage("collect").manifest()
    assert rollouts is not None
    assert vision_of(tiny).inputs == {"collect": rollouts.digest}
    assert memory_of(tiny).inputs["vision"] == vision_of(tiny).digest
    for made in (vision_of(tiny), memory_of(tiny)):
        assert made.metrics["steps"] == 6
        assert made.metrics["device"] == "cpu"
        assert made.metrics["best_step"] in (3, 6)
        assert 0 <= made.metrics["waited_for_data"] < 1
        assert set(made.content["files"]) == {made.content["weights"]}


def test_a_training_that_diverges_stops_the_pipeline(tiny: Run, tmp_path: Path, job: Callable[..., Job]) -> None:
    uri = tmp_path / "run"
    words = ("--learning-rate", 1e6, "--workers.checkpoint-seconds", 0.001, "--local")
    failed = job("vision", "tiny", "--run", uri, "--base", tiny.uri, *words)
    assert failed.wait() == 1
    assert "vision diverged at step 3" in failed.stderr
    assert "--vision.learning-rate" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert failed.stdout == ""
    run = open_existing(str(uri))
    assert run.stage("vision").manifest() is None
    assert "collect" not in {
        key.split("/")[0] for key in run.storage.sizes()
    }  # those of the base are used without a copy
    kept = Checkpoints(run.storage, "vision/checkpoints").newest()
    assert kept is not None
    assert all(bool(torch.isfinite(tensor).all()) for name, tensor in kept[0].items() if name.startswith("model."))
    following = job("latents", "--run", uri, "--local")
    assert following.wait() == 2
    assert following.stderr.splitlines()[-1] == (
        f"no completed vision stage in {uri}: run `python -m jobs.vision --run {uri}`"
    )


def test_v_trains_on_training_episodes_only(tiny: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    rollouts = tiny.stage("collect").manifest()
    assert rollouts is not None
    data = own_rollouts(rollouts)
    learner = vision_learner(TINY, data)
    read: list[int] = []
    original = type(data).read

    def watched(self, episode, columns):
        read.append(episode)
        return original(self, episode, columns)

    monkeypatch.setattr(type(data), "read", watched)
    for _ in itertools.islice(learner.batches(0), 30):
        pass
    assert set(read) == {1, 2, 3}  # 0 is held out
    held_out = original(data, 0, ["frame"])["frame"]
    assert {frame.tobytes() for frame in learner.measured.numpy()} <= {frame.tobytes() for frame in held_out}


def test_m_trains_on_training_episodes_only(tiny: Run) -> None:
    learner = memory_learner(TINY, tiny)
    seen: set[int] = set()
    begins = learner.episodes.begins

    def note(windows: torch.Tensor) -> None:
        seen.update(torch.searchsorted(begins, windows[0], right=True).sub(1).tolist())

    for windows, _ in itertools.islice(learner.batches(0), 30):
        note(windows)
    assert seen == {1, 2, 3}
    seen.clear()
    for (windows, _), _ in learner.held_out():
        note(windows)
    assert seen == {0}


def test_first_and_last_steps_are_as_frequent_as_others(tiny: Run) -> None:
    learner = memory_learner(TINY, tiny)
    episodes, length = torch.full((20_000,), 1), TINY.memory.sequence
    steps = int(learner.episodes.lengths[1])
    assert steps > 2 * length
    starts = learner.starts(episodes, torch.linspace(0, 1, len(episodes) + 1)[:-1])
    assert (int(starts.min()), int(starts.max())) == (0, steps - length)
    seen = torch.bincount((starts[:, None] + torch.arange(length)).flatten(), minlength=steps)
    assert seen.min() > 0.6 * seen.double().mean(), seen
    assert min(seen[0], seen[-1]) > 0.9 * seen[steps // 2]


def test_rewards_are_clipped_for_m(tiny: Run) -> None:
    def reward_loss(clip: float, last: float) -> float:
        config = replace(TINY, memory=replace(TINY.memory, reward_clip=clip))
        learner = memory_learner(config, tiny)
        windows, noise = next(learner.batches(0))
        ends = windows[0] + (windows[1] + TINY.memory.sequence).minimum(windows[2]) - 1
        learner.episodes.columns["reward"][ends] = last
        return float(learner.losses((windows, noise))["reward"])

    clipped, small, large = reward_loss(20.0, -100.0), reward_loss(0.0, -20.0), reward_loss(0.0, -100.0)
    assert clipped == small < large / 20


def test_init_starts_from_the_weights_of_another_run(tiny: Run) -> None:
    rollouts = tiny.stage("collect").manifest()
    assert rollouts is not None
    data = own_rollouts(rollouts)

    def model(config: Config) -> dict[str, torch.Tensor]:
        return vision_learner(config, data).model.state_dict()

    trained = unpacked(vision_of(tiny).read(vision_of(tiny).content["weights"]))[0]
    begun = model(replace(TINY, vision=replace(TINY.vision, init=tiny.uri)))
    assert all(torch.equal(begun[name], trained[name]) for name in trained)
    assert not torch.equal(model(TINY)["heads.weight"], trained["heads.weight"])
    with pytest.raises(UserError, match=r"has other sizes than this run's: use an --vision.init run"):
        model(replace(TINY, vision=replace(TINY.vision, init=tiny.uri, z=8)))
    with pytest.raises(UserError, match="no run in /nowhere"):
        model(replace(TINY, vision=replace(TINY.vision, init="/nowhere")))


def test_pictures_and_curves_are_written(tiny: Run) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    memory = f"memory/{vision_of(tiny).digest[:12]}"
    for stage, name, pictures in (
        ("vision", "vision", ("reconstructions", "traversal")),
        (memory, "memory", ("filmstrip", "predictions")),
    ):
        for picture in pictures:
            assert (tiny.storage.get(f"{stage}/pictures/{picture}.png") or b"")[1:4] == b"PNG"
        events = EventAccumulator(str(Path(tiny.uri, stage))).Reload()
        assert [point.step for point in events.Scalars(f"{name}/held_out_loss")] == [0, 3, 6]
        assert [point.step for point in events.Scalars(f"{name}/loss")] == [3, 6]
        lines = (tiny.storage.get(f"{stage}/metrics.jsonl") or b"").splitlines()
        assert [json.loads(line)["step"] for line in lines] == [0, 3, 6]
