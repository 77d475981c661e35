"""An agent step by step: the game, V's reconstruction, M's prediction, and M's dream from the same start."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import gymnasium
import numpy as np
import torch
from torch import Tensor

from wm.agents.trained import Trained
from wm.dream.rules import rules_of
from wm.dream.starts import Starts
from wm.dream.world import World
from wm.errors import UserError
from wm.models.memory import State
from wm.seeds import derive
from wm.visuals.pictures import decoded, moments

AWAKE = 60  # steps of the real game before M's dream starts; CarRacing zooms in before


@dataclass(frozen=True)
class Scene:
    """One step: its pictures, the main one first, and the score so far."""

    step: int
    score: float  # sum of rewards so far
    a: np.ndarray  # (A,), C's action
    views: tuple[tuple[str, np.ndarray], ...]  # name and picture (height, width, 3) uint8


def real(agent: Trained, seed: int, steps: int = 0, every: int = 1, awake: int = AWAKE) -> Iterator[Scene]:
    """An episode of the unmodified game, one scene per `every` steps.

    After `awake` steps a dream starts from the agent's z and M's state. C drives in it as well, without any further
    input from the game.
    """
    game = agent.game
    driver = agent.agent(seed=derive("watch", seed))
    environment = game.make(exact=True)
    try:
        frame, _ = environment.reset(seed=seed)
        score, expected, dream = 0.0, None, None
        for step in range(steps or game.max_steps):
            before = State(*(x.clone() for x in driver.state)) if driver.state else None
            a = driver.act(frame[None], np.zeros(1, int))[0]  # (A,)
            z = driver.z.clone()  # (1, Z)
            if agent.memory is not None and step == awake:
                states = torch.cat(before, dim=1).numpy() if before else None  # (1, 2H)
                start = Starts(z.numpy(), np.full(z.shape, -np.inf, np.float32), states)  # without noise
                dream = SingleDream(agent, start, derive("watch", "dream", seed))
            if step % every == 0:
                dreams = "M's dream ended" if dream and dream.over else "M dreams"
                imagined = {"V sees": z, "M expected": expected, dreams: dream.z if dream else None}
                views = (("the game", _picture(environment, frame)), *_decoded(agent, imagined))
                yield Scene(step, score, a, views)
            if driver.state is not None and agent.memory is not None:
                with torch.inference_mode():
                    expected = moments(agent.memory.predict(driver.state.h))[0]  # (1, Z)
            if dream is not None:
                dream.step()
            frame, reward, terminated, truncated, _ = environment.step(a)
            score += float(reward)
            if terminated or truncated:
                break
    finally:
        environment.close()


def dreamt(agent: Trained, seed: int, steps: int = 0, every: int = 1, tau: float | None = None) -> Iterator[Scene]:
    """An episode of the dream, decoded by V; the score is M's prediction."""
    if agent.memory is None:
        raise UserError("this agent has no M to dream with: use --in real")
    if agent.starts is None:
        raise UserError("there are no first frames to dream from: run `python -m jobs.latents`")
    dream, score = SingleDream(agent, agent.starts, derive("watch", "dream", seed), tau=tau), 0.0
    for step in range(steps or agent.game.max_steps):
        z = dream.z
        reward = dream.step()
        if step % every == 0:
            yield Scene(step, score, dream.a, _decoded(agent, {f"dream, tau {dream.world.rules.tau:g}": z}))
        score += reward
        if dream.over:
            break


class SingleDream:
    """One dream in which C acts."""

    def __init__(self, agent: Trained, starts: Starts, seed: int, tau: float | None = None):
        assert agent.memory is not None
        rules = rules_of(agent.config, agent.game)
        rules = rules if tau is None else replace(rules, tau=tau)
        self.world = World(agent.memory, starts, rules, agent.game.squash)
        self.controller, self.rng, self.over = agent.controller, np.random.default_rng(seed), False
        self.theta = self.controller.tensor(agent.theta)  # (1, N)
        self.batch = self.world.batch(1)
        self.batch.state[0] = torch.from_numpy(self.world.begin(self.rng))

    @property
    def z(self) -> Tensor:
        """The current latent vector. (1, Z)"""
        return self.batch.z.clone()

    @property
    def a(self) -> np.ndarray:
        """The last action. (A,)"""
        return self.batch.a[0].numpy().copy()

    @torch.inference_mode()
    def step(self) -> float:
        """Take a step and return its reward; does nothing after the end."""
        if self.over:
            return 0.0
        s = self.batch
        features = s.state[:, : self.controller.features_size].unsqueeze(1)  # (1, 1, F)
        s.a.copy_(self.world.squash(self.controller.act(self.theta, features).squeeze(1)))
        self.world.step(s, torch.from_numpy(self.world.noise(self.rng, 1)))
        self.over = bool(s.done.item())
        return float(s.reward.item())


def _picture(environment: gymnasium.Env, frame: np.ndarray) -> np.ndarray:
    """The game's own rendering, or V's frame if there is none."""
    try:
        picture = environment.render()
    except NotImplementedError:
        return frame
    return picture if isinstance(picture, np.ndarray) else frame


def _decoded(agent: Trained, imagined: dict[str, Tensor | None]) -> tuple[tuple[str, np.ndarray], ...]:
    if not agent.decodes:
        raise UserError("this agent has no decoder for V: put NAME-decoder.safetensors next to its file")
    latents = {name: z for name, z in imagined.items() if z is not None}
    frames = decoded(agent.vision, torch.cat(list(latents.values())))  # (B, 64, 64, 3)
    frames = (frames.clamp(0, 1) * 255).round().byte()
    return tuple((name, frame.numpy()) for name, frame in zip(latents, frames, strict=True))
