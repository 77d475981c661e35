"""Shared parts of the stages that train V and M."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from wm.config.schema import Training
from wm.models.device import prepare
from wm.pool import Pool, Progress
from wm.runs.manifest import Manifest
from wm.runs.run import Run, Stage
from wm.runs.shards import DataSet
from wm.runs.storage import Storage, open_storage
from wm.training.learner import Learner
from wm.training.loop import Finished, train
from wm.training.weights import manifest_in


@dataclass(frozen=True)
class TrainingTask(ABC):
    """The task that trains V or M. Started again, it continues from its last checkpoint."""

    data: DataSet
    uri: str
    folder: str
    device: str
    checkpoint_seconds: float

    name = ""  # of the stage

    @property
    @abstractmethod
    def threads(self) -> int: ...

    @abstractmethod
    def learner(self) -> Learner: ...

    @abstractmethod
    def pictures(self, learner: Any, storage: Storage, folder: str) -> None:
        """Write pictures of the finished model into this folder."""

    def run(self) -> Iterator[Any]:
        prepare(self.device)
        storage, learner = open_storage(self.uri), self.learner()
        for report in train(learner, self.name, storage, self.folder, self.checkpoint_seconds):
            if isinstance(report, Finished):
                self.pictures(learner, storage, f"{self.folder}/pictures")
            yield report


def run_training(task: TrainingTask, section: Training, inputs: dict[str, str], stage: Stage, pool: Pool) -> Manifest:
    """Run the task, pass on its progress, and commit its result."""
    stage.begin()
    finished: Finished | None = None
    for report in pool.stream(task):
        if isinstance(report, Progress):
            stage.tell(report)
        else:
            finished = report
    assert finished is not None, "a training ended without a result"
    return stage.commit(
        section.steps,
        inputs=inputs,
        content={"weights": finished.weights, "files": {finished.weights: finished.sha256}},
        metrics=finished.metrics | {"steps": finished.step, "best_step": finished.best_step, "device": task.device},
    )


def reuse(section: Training, inputs: dict[str, str], stage: Stage, run: Run) -> Manifest:
    """Another run's model, unchanged. It keeps its digest, so that results made with it can be reused."""
    manifest = manifest_in(section.init, stage.name)
    for key in manifest.content["files"]:
        run.storage.put(key, manifest.read(key))
    run.tell(Progress(stage.name, section.steps, section.steps, "steps"))
    return stage.commit(section.steps, inputs=inputs, content=manifest.content, metrics=manifest.metrics)
