"""Train M on the latents: what comes next, given what was seen and done."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from wm.agents.artifacts import load_vision
from wm.config.schema import Config
from wm.pool import Pool
from wm.runs.datasets import data_set
from wm.runs.run import Manifest, Run, open_existing
from wm.stages.training import conduct
from wm.training.loop import Finished, train
from wm.training.memory import MemoryLearner
from wm.visuals.pictures import memory_pictures


def train_memory(config: Config, run: Run, pool: Pool) -> Manifest:
    """M, complete with its weights, its curves and pictures of what it expects."""
    section = config.memory
    vision = run.need("vision", config.vision.steps, "train_vision")
    stage = run.stage("memory", of=vision.digest)
    done = stage.complete(section.steps)
    if done is not None:
        return done
    latents = run.need("latents", config.collect.episodes, "encode", of=vision.digest)
    data_set(latents, "encode").verify()
    task = MemoryTraining(config, run.uri, stage.folder, pool.device(section.device))
    return conduct(task, section, {"latents": latents.digest, "vision": vision.digest}, stage, run, pool)


@dataclass(frozen=True)
class MemoryTraining:
    """The task that trains M; whoever runs it again goes on from its last checkpoint."""

    config: Config
    uri: str
    folder: str
    device: str

    @property
    def threads(self) -> int:
        return self.config.memory.threads

    def run(self) -> Iterator[Any]:
        run, config = open_existing(self.uri), self.config
        vision = run.need("vision", config.vision.steps, "train_vision")
        latents = run.need("latents", config.collect.episodes, "encode", of=vision.digest)
        learner = MemoryLearner(config, data_set(latents, "encode"), self.device)
        for report in train(learner, config.memory, "memory", run.storage, self.folder):
            if isinstance(report, Finished):
                memory_pictures(
                    learner.model,
                    load_vision(vision),
                    next(learner.held_out())[0],
                    run.storage,
                    f"{self.folder}/pictures",
                )
            yield report
