"""The training loop with a model of two weights: it resumes bit for bit and reports every failure."""

import itertools
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensors import unpacked
from torch import Tensor, nn

from wm.config.schema import Training
from wm.errors import Failure, UserError
from wm.pool import Progress
from wm.runs.checkpoints import KEPT, Checkpoints
from wm.runs.reader import pack
from wm.runs.storage import Storage, open_storage
from wm.training.learner import Learner, split
from wm.training.loop import Finished, train
from wm.training.recording import Batch

EACH_STEP = 1e-9  # seconds between checkpoints
SECTION = Training(steps=30, batch=8, learning_rate=0.05, evaluate_steps=5)


class Line(Learner):
    """Learns y = 3 x + 1 with noise."""

    def __init__(self, section: Training = SECTION, factors: dict[int, float] | None = None):
        torch.manual_seed(0)
        self.factors = factors or {}  # of the loss, by step
        self.drawn: list[int] = []
        super().__init__("line", nn.Linear(1, 1), section, seed=7, device="cpu")

    def host_batches(self, start: int) -> Iterator[Batch]:
        for number in itertools.count(start):
            self.drawn.append(number)
            x = torch.randn(self.section.batch, 1, generator=self.generator("order", number))
            noise = torch.randn(x.shape, generator=self.generator("noise", number))
            yield x, noise, torch.tensor(self.factors.get(number, 1.0))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        x, noise, factor = batch
        return {"loss": factor * (self.model(x) - 3 * x - 1 - 0.1 * noise).square().mean()}

    def held_out(self) -> Iterator[tuple[Batch, float]]:
        x = torch.linspace(-1, 1, 16)[:, None]
        yield (x, torch.randn(x.shape, generator=self.generator("held out", 0)), torch.tensor(1.0)), 16


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path))


def run(
    storage: Storage, section: Training = SECTION, learner: Learner | None = None
) -> tuple[list[Progress], Finished]:
    *reports, last = train(learner or Line(section), "line", storage, "line", EACH_STEP)
    assert isinstance(last, Finished)
    return reports, last


def interrupted(storage: Storage, section: Training, stop: int) -> None:
    """Stop as a killed process does, right after the checkpoint of that step."""
    learner = Line(section)
    original = learner.step

    def step(number: int, batch: Any) -> dict[str, Tensor]:
        if number == stop:
            raise SystemExit
        return original(number, batch)

    learner.step = step  # type: ignore[method-assign]
    with pytest.raises(SystemExit):
        list(train(learner, "line", storage, "line", EACH_STEP))


def checkpoints(storage: Storage, kind: str = "step") -> list[str]:
    return [key for key in storage.sizes("line/checkpoints") if f"/{kind}-" in key]


def rows(storage: Storage) -> list[dict[str, float]]:
    return [json.loads(line) for line in (storage.get("line/metrics.jsonl") or b"").splitlines()]


def test_it_learns_and_reports_its_progress(storage: Storage) -> None:
    reports, finished = run(storage)
    assert (finished.step, reports[0].done, reports[-1].done, reports[-1].total) == (30, 0, 30, 30)
    assert [row["step"] for row in rows(storage)] == [0, 5, 10, 15, 20, 25, 30]
    losses = {int(row["step"]): row["held_out_loss"] for row in rows(storage)}
    assert losses[30] < losses[0] / 2
    assert finished.best_step == min(losses, key=lambda step: losses[step])
    assert finished.metrics["held_out_loss"] == losses[finished.best_step]
    weights = unpacked(storage.get(finished.weights) or b"")[0]
    assert set(weights) == {"weight", "bias"}


def test_the_result_is_the_best_weights_rather_than_the_last(storage: Storage) -> None:
    section = replace(SECTION, steps=8, learning_rate=1.0, decay_steps=10_000, evaluate_steps=1)
    _, finished = run(storage, section)
    losses = {int(row["step"]): row["held_out_loss"] for row in rows(storage)[1:]}
    assert finished.best_step == min(losses, key=lambda step: losses[step]) < 8
    model = nn.Linear(1, 1)
    model.load_state_dict(unpacked(storage.get(finished.weights) or b"")[0])
    learner = Line(section)
    learner.model = model
    assert learner.evaluate()["loss"] == losses[finished.best_step]


def test_a_resumed_training_ends_in_the_same_bits(storage: Storage, tmp_path: Path) -> None:
    _, uninterrupted = run(storage)
    for number, stops in enumerate([(1,), (5,), (29,), (3, 4, 11, 26)]):
        other = open_storage(str(tmp_path / f"run-{number}"))
        for stop in stops:
            interrupted(other, SECTION, stop)
        learner = Line()
        _, finished = run(other, learner=learner)
        assert learner.drawn[0] == stops[-1]  # it resumes at the next step and repeats none
        assert (finished.sha256, finished.best_step) == (uninterrupted.sha256, uninterrupted.best_step)
        assert [row["held_out_loss"] for row in rows(other)] == [row["held_out_loss"] for row in rows(storage)]
        one, two = (Checkpoints(place, "line/checkpoints").newest() for place in (storage, other))
        assert one is not None
        assert two is not None
        assert all(torch.equal(one[0][name], two[0][name]) for name in one[0].keys() | two[0].keys())


def test_more_steps_continue_a_finished_training(storage: Storage, tmp_path: Path) -> None:
    run(storage, replace(SECTION, steps=10))
    learner = Line(replace(SECTION, steps=30))
    _, more = run(storage, replace(SECTION, steps=30), learner)
    _, at_once = run(open_storage(str(tmp_path / "other")))
    assert learner.drawn[0] == 10
    assert more.sha256 == at_once.sha256


def test_a_finished_training_is_not_repeated(storage: Storage) -> None:
    _, first = run(storage)
    learner = Line()
    _, again = run(storage, learner=learner)
    assert learner.drawn == []
    assert (again.weights, again.best_step) == (first.weights, first.best_step)


def test_two_checkpoints_and_the_best_are_kept(storage: Storage) -> None:
    run(storage)
    assert [key.split("-")[1] for key in checkpoints(storage)] == ["0000000029", "0000000030"]
    assert len(checkpoints(storage)) == KEPT
    assert len(checkpoints(storage, "best")) == 1


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: b"", lambda data: data[:-1] + b"\0"])
def test_a_damaged_checkpoint_is_skipped(storage: Storage, tmp_path: Path, damage: Any, caplog: Any) -> None:
    _, uninterrupted = run(open_storage(str(tmp_path / "uninterrupted")))
    interrupted(storage, SECTION, 12)
    newest = checkpoints(storage)[-1]
    storage.put(newest, damage(storage.get(newest) or b""))
    learner = Line()
    _, finished = run(storage, learner=learner)
    assert newest in caplog.text
    assert learner.drawn[0] == 11
    assert finished.sha256 == uninterrupted.sha256
    found = Checkpoints(storage, "line/checkpoints").newest()
    assert found is not None
    assert found[1]["step"] == 30


def test_without_an_intact_checkpoint_it_starts_over(storage: Storage, tmp_path: Path) -> None:
    interrupted(storage, SECTION, 12)
    for key in checkpoints(storage):
        storage.put(key, b"x")
    learner = Line()
    run(storage, learner=learner)
    assert learner.drawn[0] == 0


def test_damaged_best_weights_are_an_error(storage: Storage) -> None:
    run(storage)
    (best,) = checkpoints(storage, "best")
    storage.put(best, (storage.get(best) or b"")[:-1])
    with pytest.raises(UserError, match=f"{best} is missing or damaged: remove the folder line/checkpoints"):
        run(storage)


@pytest.mark.parametrize("factor", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_training(storage: Storage, factor: float) -> None:
    learner = Line(factors={12: factor})
    with pytest.raises(Failure, match=r"line diverged at step 15 \(.*nan.*best weights, of step 10.*--line.learning-r"):
        run(storage, learner=learner)
    kept = Checkpoints(storage, "line/checkpoints").newest()
    assert kept is not None
    assert kept[1]["step"] == 12  # the last good one
    assert all(bool(torch.isfinite(tensor).all()) for tensor in kept[0].values())
    assert checkpoints(storage, "best") != []


def test_divergence_stops_the_training(storage: Storage) -> None:
    with pytest.raises(Failure, match=r"line diverged at step 5 \(held_out_loss is .*smaller --line.learning-rate"):
        run(storage, replace(SECTION, learning_rate=1e6), Line(replace(SECTION, learning_rate=1e6)))


def test_the_learning_rate_is_constant_then_falls() -> None:
    learner = Line(replace(SECTION, learning_rate=0.5, decay_steps=100))
    rates = []
    for step in (0, 50, 100, 400, 10_000):
        learner.set_rate(step)
        rates.append(learner.optimisers["adam"].param_groups[0]["lr"])
    assert rates == pytest.approx([0.5, 0.5, 0.5, 0.25, 0.05])


def test_tensorboard_reads_the_events(storage: Storage, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    interrupted(storage, SECTION, 12)  # a resumed training continues the curves
    run(storage)
    events = EventAccumulator(str(tmp_path / "line"), size_guidance={"scalars": 0}).Reload()
    assert set(events.Tags()["scalars"]) == {"line/loss", "line/held_out_loss"}
    curve = events.Scalars("line/held_out_loss")
    assert [point.step for point in curve] == [0, 5, 10, 15, 20, 25, 30]
    assert [point.value for point in curve] == pytest.approx([row["held_out_loss"] for row in rows(storage)])
    assert [point.wall_time for point in curve] == pytest.approx([row["time"] for row in rows(storage)])


def test_held_out_episodes_stay_held_out_with_more_data() -> None:
    training, held_out = split(100, 20)
    assert list(held_out) == [0, 20, 40, 60, 80]
    assert sorted([*training, *held_out]) == list(range(100))
    more_training, more_held_out = split(250, 20)
    assert not set(training) & set(more_held_out)
    assert not set(held_out) & set(more_training)
    assert list(split(4, 20)[1]) == [0]
    with pytest.raises(UserError, match=r"training needs 2 or more episodes.*got 1: raise --collect.episodes"):
        split(1, 20)


def test_packed_tensors_keep_their_types() -> None:
    tensors = {"a": torch.arange(6).view(2, 3).T, "b": torch.tensor(0.1, dtype=torch.float64), "c": torch.zeros(0)}
    found, info = unpacked(pack(tensors, {"x": 0.1, "y": [1, None]}))
    assert info == {"x": 0.1, "y": [1, None]}
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    assert [found[name].dtype for name in "abc"] == [torch.int64, torch.float64, torch.float32]
    assert np.array_equal(found["a"].numpy(), tensors["a"].numpy())
