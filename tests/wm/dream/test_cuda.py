"""Dreams on fake CUDA tensors: all on the device, and no copy between host and device within a chunk."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from fake_cuda import DEVICE, Watch, fake_cuda

from wm.dream.population import Dream, Players
from wm.dream.rules import Rules
from wm.dream.starts import Starts
from wm.dream.world import LINE, World
from wm.envs import Game, load
from wm.envs.anygym import AnyGame
from wm.models.controller import Controller
from wm.models.memory import MDNRNN

Z, HIDDEN = 6, 20


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    with fake_cuda(monkeypatch) as watching:
        yield watching


def dream(game: Game, dtype: torch.dtype, done: str = "sample") -> Dream:
    starts = Starts(np.zeros((1, Z), np.float32), np.zeros((1, Z), np.float32))
    memory = MDNRNN(z=Z, actions=game.actions, hidden=HIDDEN, reward=True, done=True)
    rules = Rules(steps=50, reward="head", done=done, lap=9.0)  # type: ignore[arg-type]
    world = World(memory, starts, rules, game.squash, device=DEVICE, dtype=dtype)
    return Dream(world, Controller("zhc", Z, HIDDEN, game.actions))


@pytest.mark.parametrize("name", ["car-racing", "doom", "gym:CartPole-v1", "gym:CarRacing-v3"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_chunk_copies_nothing_to_or_from_the_device(
    name: str, dtype: torch.dtype, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wm.dream.population.CHUNK", 2)
    d = dream(AnyGame(name) if name.startswith("gym:") else load(name), dtype)
    players, smaller = (Players(rows, 4, d.world, d.controller) for rows in (24, 8))
    assert d.world.aligned
    rngs = [np.random.default_rng(number) for number in range(4)]
    with torch.inference_mode():
        d._fill(players, d.controller.tensor(np.zeros((5, d.controller.size)), DEVICE), rngs)
        d._chunk(players)  # as before a recording
        watch.forget()
        d._chunk(players)
        smaller.copy_rows(players, torch.arange(8, device=DEVICE))
        d._chunk(smaller)
    assert watch.blocking == watch.copies == []
    tensors = {name: value for name, value in vars(smaller).items() if isinstance(value, torch.Tensor)}
    assert {name for name, value in tensors.items() if value.device.type != "cuda"} == set()


def test_the_operands_of_products_are_aligned_for_cublas(watch: Watch) -> None:
    d = dream(load("car-racing"), torch.float32)
    s = d.world.batch(8)
    for packed, x, out in ((d.world.gates, s.seen, s.gates), (d.world.heads, s.h, s.heads)):
        bias, weight = packed
        assert weight.shape == (x.shape[1] if x is s.seen else HIDDEN, out.shape[1])
        assert bias.shape == out.shape[1:]
        assert x.stride(0) % 4 == out.stride(0) % 4 == weight.stride(0) % 4 == 0  # 16 bytes
    assert s.seen.storage_offset() == 0
    assert s.seen.shape[1] % LINE == s.heads.shape[1] % LINE == 0
