"""Trainings on fake CUDA tensors: all on the device, no update waits for a copy, and the LSTM keeps its precision."""

import itertools
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from fake_cuda import DEVICE, Watch, fake_cuda

from wm.config.fields import of_kind
from wm.config.presets import PRESETS
from wm.config.schema import Config
from wm.envs import load
from wm.models.memory import MDNRNN
from wm.runs.datasets import latents_of, rollouts_of
from wm.runs.run import Run
from wm.stages.vision import LEARNERS
from wm.training.learner import Learner
from wm.training.memory import MemoryLearner
from wm.training.vision import TRAINING_MEMORY, VisionLearner

TINY = PRESETS["tiny"]
DOOM = replace(TINY, memory=replace(TINY.memory, done=True, previous_done=True, next_action=True))


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    with fake_cuda(monkeypatch) as watching:
        yield watching


def vision_learner(run: Run, kind: str, precision: str = "float32") -> VisionLearner:
    section = replace(TINY.vision, kind=kind, precision=precision)
    return LEARNERS[kind](section, load(TINY.game), TINY.seed, rollouts_of(run.need("collect")), DEVICE)


def memory_learner(run: Run, config: Config = TINY, precision: str = "float32") -> MemoryLearner:
    section = replace(config.memory, precision=precision)
    return MemoryLearner(section, of_kind(config, "bits"), latents_of(run.need("latents")), DEVICE)


def steps(learner: Learner, watch: Watch, count: int = 3) -> None:
    """These updates one kernel at a time, as they are recorded; `watch` notes the last one."""
    learner.recorded = False
    watch.parameters = list(learner.model.parameters())
    for number, batch in enumerate(itertools.islice(learner.batches(0), count)):
        watch.forget()
        losses = learner.step(number, batch)
        assert {value.device.type for value in losses.values()} == {"cuda"}
    assert all(parameter.device.type == "cuda" for parameter in watch.parameters)


def free_memory(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (size, size))


@pytest.mark.parametrize("kind", ["vae", "vaegan"])
@pytest.mark.parametrize("fits", [True, False])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_no_update_of_v_waits(
    kind: str, fits: bool, precision: str, tiny: Run, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = vision_learner(tiny, kind, precision)
    need = learner.stream.total * 12_288 + TRAINING_MEMORY
    free_memory(monkeypatch, need + fits)  # frames + 2 GB are enough
    steps(learner, watch)
    assert watch.blocking == []
    assert len(watch.copies) == 2  # frames or positions, and noise
    assert (learner.frames is not None) == fits
    if fits:
        assert learner.frames is not None
        assert len(learner.frames) == learner.stream.total < sum(learner.stream.data.lengths)  # without the held-out
    assert torch.float16 not in set().union(*watch.types.values())


@pytest.mark.parametrize("config", [TINY, DOOM], ids=["car-racing", "doom"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_no_update_of_m_waits(config: Config, precision: str, tiny: Run, watch: Watch) -> None:
    learner = memory_learner(tiny, config, precision)
    steps(learner, watch)
    assert watch.blocking == []
    assert len(watch.copies) == 2  # windows and noise


def test_the_lstm_is_neither_fp16_nor_bf16_on_a_gpu(watch: Watch) -> None:
    """autocast would make it fp16, without a scaler of the loss."""
    memory = MDNRNN(z=4, actions=3, hidden=8, reward=True).to(DEVICE)
    with torch.autocast("cuda", torch.bfloat16):
        prediction, state = memory(torch.empty(2, 5, 4, device=DEVICE), torch.empty(2, 5, 3, device=DEVICE))
    assert state.h.dtype == state.c.dtype == torch.float32
    types = set().union(*watch.types.values())
    assert torch.bfloat16 in types  # the heads
    assert torch.float16 not in types
    assert prediction.mu.device.type == "cuda"


@pytest.mark.parametrize("make", [lambda run: vision_learner(run, "vaegan"), memory_learner], ids=["v", "m"])
def test_a_resumed_optimiser_is_on_the_device(make, tiny: Run, watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    free_memory(monkeypatch, 0)
    learner, resumed = make(tiny), make(tiny)
    steps(learner, watch, 1)
    resumed.load_state({name: value.cpu() for name, value in learner.state().items()})
    state = resumed.state()
    assert state.keys() == learner.state().keys()
    assert {value.device.type for value in state.values()} == {"cuda"}
    steps(resumed, watch, 1)
    assert watch.blocking == []


@pytest.mark.parametrize("make", [lambda run: vision_learner(run, "vae"), memory_learner], ids=["v", "m"])
def test_evaluations_are_on_the_device(make, tiny: Run, watch: Watch) -> None:
    learner = make(tiny)
    for batch, _ in learner.held_out():
        assert {value.device.type for value in learner.losses(batch).values()} == {"cuda"}


def test_a_copy_that_waits_is_noted(watch: Watch) -> None:
    """Otherwise the tests above could not fail."""
    host = torch.empty(3)
    host.to(DEVICE, non_blocking=True)  # from pageable memory
    host.pin_memory().to(DEVICE)
    torch.empty(3, device=DEVICE).cpu()
    torch.empty(3, device=DEVICE).copy_(host)
    assert len(watch.blocking) == 4
    torch.empty(3, device=DEVICE).copy_(host.pin_memory(), non_blocking=True)
    assert len(watch.copies) == 1
    with pytest.raises(Exception, match="_local_scalar_dense"):
        torch.empty((), device=DEVICE).item()
    with pytest.raises(Exception, match="device"):
        torch.empty(3, device=DEVICE) + torch.empty(3)
