"""The agent in the real game and in the dream, against batch 1 and against its matrix products only."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from jobs.benchmarks.measure import Row, one_core, rates
from wm.config.fields import of_kind
from wm.config.presets import PRESETS
from wm.dream.population import Dream
from wm.dream.rules import Rules
from wm.dream.starts import Starts
from wm.dream.world import World
from wm.envs import load
from wm.evolution.evaluation import EvaluateWork, GameUnit
from wm.models.agent import Models
from wm.models.build import controller_of, new_memory
from wm.models.memory import MDNRNN, sample
from wm.models.vision import VAE


def models_of_the_paper() -> tuple[Models, np.ndarray]:
    config = PRESETS["car-racing-small"]
    torch.manual_seed(1)
    vision = VAE(config.vision.z).eval()
    memory = MDNRNN(z=config.vision.z, actions=3, hidden=config.memory.hidden, reward=True).eval()
    controller = controller_of(config)
    return Models(vision, memory, controller), np.random.default_rng(1).normal(0, 0.03, (32, controller.size))


def real(seconds: float) -> list[Row]:
    models, thetas = models_of_the_paper()
    rows = []
    with one_core():
        theirs = None
        for each in (4, 16, 32, 64):
            work = EvaluateWork(load("car-racing"), models, threads=1).build()
            owner = tuple(range(min(each, len(thetas)))) * max(1, each // len(thetas))
            numbers = iter(range(1_000_000))

            def ours(work: Callable = work, owner: tuple = owner, numbers: object = numbers, each: int = each) -> int:
                seeds = tuple(range(each))
                unit = GameUnit("bench", thetas, owner, seeds, steps=500, patience=0, noise=1)
                return sum(episode.steps for episode in work(unit))

            if each == 32:
                mine, theirs = rates([ours, _plain_agent(models, thetas[0])], 3 * seconds, turns=1)
            else:
                (mine,) = rates([ours], seconds, turns=1)
            rows.append(Row(f"agent in the real game, units of {each} episodes, one core", mine, "steps/s", None))
    return [replace(row, plain=theirs) for row in rows]


def _plain_agent(models: Models, theta: np.ndarray) -> Callable[[], int]:
    """One episode, one frame at a time: gymnasium's environment, V, M and C at batch 1 in fp32."""
    game, vision, memory, controller = load("car-racing"), models.vision, models.memory, models.controller
    assert memory is not None
    env = game.make(exact=True)
    weights = controller.tensor(theta[None])
    frame = env.reset(seed=1)[0]
    state = memory.initial(1)

    def play() -> int:
        nonlocal frame, state
        with torch.no_grad():
            for _ in range(50):
                z, _ = vision.encode(torch.from_numpy(frame)[None])
                a = game.squash(controller.act(weights, controller.features(z, state.h)[None])[0])
                state = memory.advance(z, a, state)
                frame = env.step(a[0].numpy())[0]
        return 50

    return play


def dreaming(seconds: float) -> list[Row]:
    return [row for preset in ("car-racing", "doom") for row in _dreaming(preset, seconds)]


def _dreaming(preset: str, seconds: float) -> list[Row]:
    """With the paper's M and C for that game."""
    config = PRESETS[preset]
    size, squash = config.vision.z, load(config.game).squash
    torch.manual_seed(1)
    memory, controller = new_memory(of_kind(config, "bits"), size).eval(), controller_of(config)
    starts = Starts(np.zeros((1, size), np.float32), np.zeros((1, size), np.float32))
    rules = Rules(steps=200, done="never", reward="head" if config.memory.reward else "survival")
    dream = Dream(World(memory, starts, rules, squash), controller)
    thetas = np.random.default_rng(1).normal(0, 0.03, (64, controller.size))

    def ours() -> int:
        return int(dream.rollout(thetas, seed=1, episodes=16)[1].sum())

    theta, state, z = controller.tensor(thetas[:1]), memory.initial(1), torch.zeros(1, size)
    not_done = torch.zeros(1) if memory.previous_done else None

    @torch.inference_mode()
    def plain() -> int:
        nonlocal state, z
        for _ in range(100):
            a = squash(controller.act(theta, controller.features(z, state.h, state.c)[None])[0])
            state = memory.advance(z, a, state, not_done)
            z = sample(memory.predict(state.h), 1.0, torch.rand(1, size), torch.randn(1, size))
        return 100

    x, gates = torch.randn(1024, memory.gates.in_features), torch.randn(memory.gates.in_features, 4 * memory.hidden)
    h, heads = torch.randn(1024, memory.hidden), torch.randn(memory.hidden, memory.heads.out_features)
    seen = torch.randn(1024, 1, controller.features_size)
    weights = torch.randn(1024, controller.features_size, controller.outputs)

    @torch.inference_mode()
    def bound() -> int:
        for _ in range(10):
            x @ gates, h @ heads, torch.bmm(seen, weights)
        return 10 * 1024

    with one_core():
        mine, theirs, most = rates([ours, plain, bound], 3 * seconds)
    return [
        Row(f"dream of {preset}, 64 candidates x 16 episodes, one core", mine, "steps/s", theirs),
        Row(f"dream of {preset}, against its matrix products only", mine, "steps/s", most),
    ]
