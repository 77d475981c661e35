"""Train V on the frames of the rollouts."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from wm.config.schema import Config
from wm.pool import Pool
from wm.runs.datasets import rollouts
from wm.runs.run import Manifest, Run, open_existing
from wm.stages.training import conduct, take_over
from wm.training.loop import Finished, train
from wm.training.vaegan import VaeGanLearner
from wm.training.vision import VisionLearner
from wm.visuals.pictures import vision_pictures

LEARNERS: dict[str, type[VisionLearner]] = {"vae": VisionLearner, "vaegan": VaeGanLearner}


def train_vision(config: Config, run: Run, pool: Pool) -> Manifest:
    """V, complete with its weights, its curves and pictures of what it sees."""
    section, stage = config.vision, run.stage("vision")
    done = stage.complete(section.steps)
    if done is not None:
        return done
    made = run.need("collect", config.collect.episodes, "collect")
    if section.frozen:
        return take_over(section, {"collect": made.digest}, stage, run)
    rollouts(made).verify()
    task = VisionTraining(config, run.uri, pool.device(section.device))
    return conduct(task, section, {"collect": made.digest}, stage, run, pool)


@dataclass(frozen=True)
class VisionTraining:
    """The task that trains V; whoever runs it again goes on from its last checkpoint."""

    config: Config
    uri: str
    device: str

    @property
    def threads(self) -> int:
        return self.config.vision.threads

    def run(self) -> Iterator[Any]:
        run = open_existing(self.uri)
        made = run.need("collect", self.config.collect.episodes, "collect")
        learner = LEARNERS[self.config.vision.kind](self.config, rollouts(made), self.device)
        for report in train(learner, self.config.vision, "vision", run.storage, "vision"):
            if isinstance(report, Finished):
                vision_pictures(learner.model, learner.measured, run.storage, "vision/pictures")
            yield report
