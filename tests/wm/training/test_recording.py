"""Recorded updates, with a stand-in for CUDA's graphs on the CPU: they end in the bits of plain updates."""

import itertools
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from wm.config.presets import PRESETS
from wm.envs import load
from wm.runs.datasets import rollouts_of
from wm.runs.run import Run
from wm.training.recording import QUEUED, WARM_UP, Recording
from wm.training.vaegan import VaeGanLearner
from wm.training.vision import VisionLearner

TINY = PRESETS["tiny"]


class Graphs:
    """Like CUDA's: what runs while a graph is recorded changes nothing, and a replay does it on the same memory."""

    def __init__(self, learner: VisionLearner, monkeypatch: pytest.MonkeyPatch):
        self.learner, self.updates, self.waits = learner, 0, 0
        self.recording: Recording | None = None
        original = learner.update

        def update(batch: tuple[Tensor, ...]) -> dict[str, Tensor]:
            self.updates += 1
            return original(batch)

        learner.update = update  # type: ignore[method-assign]
        event = SimpleNamespace(record=lambda: None, synchronize=self.wait)
        stream = SimpleNamespace(wait_stream=lambda other: None)
        for name, stand_in in {
            "Stream": lambda: stream,
            "current_stream": lambda: stream,
            "stream": lambda stream: nullcontext(),
            "Event": lambda: event,
            "CUDAGraph": lambda: SimpleNamespace(replay=self.replay),
            "graph": self.record,
        }.items():
            monkeypatch.setattr(torch.cuda, name, stand_in)

    def wait(self) -> None:
        self.waits += 1

    @contextmanager
    def record(self, graph: Any, stream: Any) -> Any:
        before = {name: value.clone() for name, value in self.learner.state().items()}
        yield
        for name, value in self.learner.state().items():
            value.copy_(before[name])

    @torch.no_grad()
    def replay(self) -> None:
        assert self.recording is not None
        with torch.enable_grad():
            losses = self.learner.update(self.recording.batch)
        self.recording.losses.copy_(torch.stack([value.float() for value in losses.values()]))


def learner_of(run: Run, kind: type[VisionLearner]) -> VisionLearner:
    return kind(replace(TINY.vision, decay_steps=2), load(TINY.game), 7, rollouts_of(run.need("collect")), "cpu")


@pytest.mark.parametrize("kind", [VisionLearner, VaeGanLearner])
@pytest.mark.parametrize("before", [0, 2])
def test_recorded_updates_are_the_plain_ones(
    kind: type[VisionLearner], before: int, tiny: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the optimiser has a state already, as in a resumed training."""
    plain, recorded = learner_of(tiny, kind), learner_of(tiny, kind)
    batches = list(itertools.islice(plain.batches(0), before + QUEUED + 2))
    for number in range(before):
        plain.step(number, batches[number])
    recorded.load_state({name: value.clone() for name, value in plain.state().items()})
    graphs = Graphs(recorded, monkeypatch)
    kept = []
    for number in range(before, len(batches)):
        expected = plain.step(number, batches[number])
        recorded.model.train()
        recorded.set_rate(number)
        recorded.recording = graphs.recording = recorded.recording or Recording(recorded, batches[number])
        kept.append((expected, recorded.recording(batches[number])))
    for expected, found in kept:  # later updates have not overwritten the losses of earlier ones
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[name], found[name]) for name in expected)
    one, other = plain.state(), recorded.state()
    assert all(torch.equal(one[name], other[name]) for name in one.keys() | other.keys())
    assert graphs.updates == WARM_UP + 1 + len(kept)
    assert graphs.waits == len(kept) - QUEUED


def test_a_paused_network_is_skipped_on_the_device(tiny: Run) -> None:
    """CUDA's way to skip an optimiser's step, which the fused Adam of the CPU has, too."""
    learner = learner_of(tiny, VaeGanLearner)
    learner.step(0, next(learner.batches(0)))
    before = {name: value.clone() for name, value in learner.state().items()}
    for name, found_inf in (("adam_encoder", 0.0), ("adam_decoder", 1.0), ("adam_discriminator", 1.0)):
        optimiser = learner.optimisers[name]
        optimiser.found_inf = torch.tensor(found_inf)  # type: ignore[attr-defined]
        optimiser.step()
    changed = {name for name, value in learner.state().items() if not torch.equal(value, before[name])}
    assert changed
    assert all("convolutions" in name or "heads" in name or name.startswith("adam_encoder") for name in changed)
    assert not any(name.startswith(("discriminator", "adam_decoder", "adam_discriminator")) for name in changed)
