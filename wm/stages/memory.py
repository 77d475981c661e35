"""Train M on the latents: it predicts the next z from the z and actions so far."""

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
from wm.runs.storage import Storage
from wm.stages.training import TrainingTask, run_training
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
        data,
        run.uri,
        stage.folder,
        pool.device(section.device),
        config.workers.checkpoint_seconds,
        section,
        of_kind(config, "bits"),
        load(config.game).mirror if config.latents.mirrored else (),
        vision,
    )
    return run_training(task, section, {"latents": latents.digest, "vision": vision.digest}, stage, pool)


@dataclass(frozen=True)
class MemoryTraining(TrainingTask):
    """The training of M."""

    section: Memory
    fields: dict[str, Any]  # the frozen fields by flag, for the sizes of M
    mirror: tuple[float, ...]  # of actions; empty without mirrored latents
    vision: Manifest  # decodes M's predictions for the pictures

    name = "memory"

    @property
    def threads(self) -> int:
        return self.section.threads

    def learner(self) -> MemoryLearner:
        return MemoryLearner(self.section, self.fields, self.data, self.device, self.mirror)

    def pictures(self, learner: MemoryLearner, storage: Storage, folder: str) -> None:
        held_out = learner.sequences(next(learner.held_out())[0])
        memory_pictures(learner.model, load_vision(self.vision), held_out, storage, folder)
