"""Train M on the latents: it predicts the next z from the z and actions so far."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from wm.agents.artifacts import load_vision
from wm.config.fields import of_kind
from wm.config.schema import Memory
from wm.envs import load
from wm.pool import Pool
from wm.runs.datasets import latents_of
from wm.runs.manifest import Manifest
from wm.runs.run import Run
from wm.runs.shards import DataSet
from wm.runs.storage import open_storage
from wm.stages.training import run_training
from wm.training.loop import Finished, train
from wm.training.memory import MemoryLearner
from wm.visuals.pictures import memory_pictures


def train_memory(run: Run, pool: Pool) -> Manifest:
    """M: weights, curves and pictures."""
    config, section, stage = run.config, run.config.memory, run.stage("memory")
    done = stage.complete()
    if done is not None:
        return done
    vision, latents = run.need("vision"), run.need("latents")
    data = latents_of(latents)
    data.verify()
    task = MemoryTraining(
        section,
        of_kind(config, "bits"),
        load(config.game).mirror if config.latents.mirrored else (),
        data,
        vision,
        run.uri,
        stage.folder,
        pool.device(section.device),
        config.workers.checkpoint_seconds,
    )
    return run_training(task, section, {"latents": latents.digest, "vision": vision.digest}, stage, pool)


@dataclass(frozen=True)
class MemoryTraining:
    """The task that trains M. Started again, it continues from its last checkpoint."""

    section: Memory
    fields: dict[str, Any]  # the frozen fields by flag, for the sizes of M
    mirror: tuple[float, ...]  # of actions; empty without mirrored latents
    data: DataSet
    vision: Manifest  # decodes M's predictions for the pictures
    uri: str
    folder: str
    device: str
    checkpoint_seconds: float

    @property
    def threads(self) -> int:
        return self.section.threads

    def run(self) -> Iterator[Any]:
        storage, vision = open_storage(self.uri), load_vision(self.vision)
        learner = MemoryLearner(self.section, self.fields, self.data, self.device, self.mirror)
        for report in train(learner, "memory", storage, self.folder, self.checkpoint_seconds):
            if isinstance(report, Finished):
                held_out = next(learner.held_out())[0]
                memory_pictures(learner.model, vision, held_out, storage, f"{self.folder}/pictures")
            yield report
