"""V's and M's training and encoding, against naive implementations."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from jobs.benchmarks.data import collect_work
from jobs.benchmarks.measure import Row, elsewhere, one_core, rate, rates
from wm.config.fields import of_kind
from wm.config.presets import PRESETS
from wm.config.schema import Config
from wm.envs import load
from wm.models.vision import VAE
from wm.pool import set_threads
from wm.runs.shards import DataSet, File, Shard
from wm.runs.storage import Folder
from wm.stages.latents import EncodeWork
from wm.training.learner import Learner
from wm.training.memory import MemoryLearner
from wm.training.vision import VisionLearner

EPISODES = 8


@contextmanager
def rollouts(steps: int = 500) -> Iterator[tuple[Config, DataSet, str]]:
    """A small data set in a temporary folder."""
    config = PRESETS["car-racing-small"]
    config = replace(config, collect=replace(config.collect, unit_episodes=EPISODES, steps=steps))
    with tempfile.TemporaryDirectory() as folder:
        yield config, _data(folder, collect_work(config, folder).build()(0)), folder


def _encode_work(folder: str, vision: VAE, data: DataSet) -> EncodeWork:
    return EncodeWork("car-racing", False, 1, folder, "latents", vision, data)


def _data(folder: str, record: dict[str, Any]) -> DataSet:
    shard = Shard(record["key"], record["sha256"], record["bytes"], tuple(record["lengths"]))
    return DataSet([File(Folder(folder), shard, "")])


def vision(seconds: float) -> list[Row]:
    with rollouts() as (config, data, folder):
        set_threads(config.vision.threads)
        learner = VisionLearner(config.vision, load(config.game), config.seed, data, "cpu")
        ours = updates(learner, config.vision.batch)
        files = _npz(data, folder)
        before = rate(ours, seconds)
        theirs = elsewhere(_plain_vision, files, seconds=2 * seconds)
        mine = (before + rate(ours, seconds)) / 2
    return [Row(f"training V, {config.vision.threads} threads", mine, "frames/s", theirs)]


def updates(learner: Learner, each: int) -> Callable[[], int]:
    batches, numbers = learner.batches(0), count()

    def update() -> int:
        learner.step(next(numbers), next(batches))
        return each

    return update


def _npz(data: DataSet, folder: str) -> list[Path]:
    frames = np.concatenate([data.read(episode, ["frame"])["frame"][::4] for episode in range(EPISODES)])
    files = []
    for number, part in enumerate(np.array_split(frames, 8)):
        files.append(Path(folder, f"plain-{number}.npz"))
        np.savez_compressed(files[-1], frames=part)
    return files


def _plain_vision(files: list[Path]) -> Callable[[], int]:
    """The same network, channels first, fp32, batch 32, a DataLoader over npz files."""

    class Frames(torch.utils.data.IterableDataset):
        def __iter__(self) -> Iterator[torch.Tensor]:
            while True:
                for file in files:
                    for frame in np.load(file)["frames"]:
                        yield torch.from_numpy(frame).permute(2, 0, 1).float() / 255

    model = nn.ModuleDict(
        {
            "encoder": nn.Sequential(
                *(
                    layer
                    for i, o in ((3, 32), (32, 64), (64, 128), (128, 256))
                    for layer in (nn.Conv2d(i, o, 4, 2), nn.ReLU())
                ),
                nn.Flatten(),
            ),
            "mu": nn.Linear(1024, 32),
            "logvar": nn.Linear(1024, 32),
            "widen": nn.Linear(32, 1024),
            "decoder": nn.Sequential(
                nn.ConvTranspose2d(1024, 128, 5, 2),
                nn.ReLU(),
                nn.ConvTranspose2d(128, 64, 5, 2),
                nn.ReLU(),
                nn.ConvTranspose2d(64, 32, 6, 2),
                nn.ReLU(),
                nn.ConvTranspose2d(32, 3, 6, 2),
                nn.Sigmoid(),
            ),
        }
    )
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    batches = iter(torch.utils.data.DataLoader(Frames(), batch_size=32))

    def update() -> int:
        x = next(batches)
        hidden = model["encoder"](x)
        mu, logvar = model["mu"](hidden), model["logvar"](hidden)
        z = mu + torch.exp(logvar / 2) * torch.randn_like(mu)
        decoded = model["decoder"](model["widen"](z)[:, :, None, None])
        kl = -0.5 * (1 + logvar - mu**2 - logvar.exp()).sum(1)
        loss = ((decoded - x) ** 2).sum((1, 2, 3)).mean() + kl.clamp(min=16).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return len(x)

    return update


def encoding(seconds: float) -> list[Row]:
    with rollouts() as (config, data, folder), one_core():
        model = VAE(config.vision.z).eval()
        frames = torch.from_numpy(data.read(0, ["frame"])["frame"])
        work = _encode_work(folder, model, data).build()
        total = int(data.lengths.sum())
        plain_model = VAE(config.vision.z).eval()
        for parameter in plain_model.parameters():  # channels first, torch's default
            parameter.data = parameter.data.contiguous()
        numbers = count()

        def plain() -> int:
            with torch.no_grad():
                plain_model.encode(frames[next(numbers) % len(frames)][None])
            return 1

        def ours() -> int:
            work(0)
            return total

        mine, theirs = rates([ours, plain], 2 * seconds, turns=1)
    return [Row("encoding, shard to shard, one core", mine, "frames/s", theirs)]


def memory(seconds: float) -> list[Row]:
    with rollouts() as (config, data, folder):
        set_threads(config.memory.threads)
        latents = _data(folder, _encode_work(folder, VAE(config.vision.z).eval(), data).build()(0))
        learner = MemoryLearner(config.memory, of_kind(config, "bits"), latents, "cpu")
        steps = config.memory.batch * config.memory.sequence
        mine, theirs = rates([updates(learner, steps), _plain_memory()], 3 * seconds)
    return [Row(f"training M, {config.memory.threads} threads", mine, "steps/s", theirs)]


def _plain_memory() -> Callable[[], int]:
    """nn.LSTM and a mixture head in fp32, sequences of 32, batches of 16, as torch's distributions compute it."""
    lstm, head = nn.LSTM(35, 256, batch_first=True), nn.Linear(256, 3 * 5 * 32 + 1)
    optimiser = torch.optim.Adam([*lstm.parameters(), *head.parameters()], lr=1e-3)
    z, a, reward = torch.randn(16, 33, 32), torch.randn(16, 32, 3), torch.randn(16, 32)

    def update() -> int:
        output = head(lstm(torch.cat((z[:, :-1], a), -1))[0])
        logpi, mu, logsigma = output[..., 1:].unflatten(-1, (3, 32, 5)).unbind(-3)
        mixture = torch.distributions.MixtureSameFamily(
            torch.distributions.Categorical(logits=logpi), torch.distributions.Normal(mu, logsigma.exp())
        )
        loss = -mixture.log_prob(z[:, 1:]).mean() + ((output[..., 0] - reward) ** 2).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_value_([*lstm.parameters(), *head.parameters()], 1.0)
        optimiser.step()
        return 16 * 32

    return update
