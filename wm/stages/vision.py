"""Train V on the frames of the rollouts."""

import logging
from dataclasses import dataclass

from wm.config.schema import Vision
from wm.envs import Game, load
from wm.pool import Pool
from wm.runs.datasets import rollouts_of
from wm.runs.manifest import Manifest
from wm.runs.run import Run
from wm.runs.storage import Storage
from wm.stages.training import TrainingTask, reuse, run_training
from wm.training.motion import BLIND
from wm.training.vaegan import VaeGanLearner
from wm.training.vision import VisionLearner
from wm.visuals.pictures import vision_pictures

TRAINED = 300  # updates, below which any V is blind

log = logging.getLogger(__name__)

LEARNERS: dict[str, type[VisionLearner]] = {"vae": VisionLearner, "vaegan": VaeGanLearner}


def train_vision(run: Run, pool: Pool) -> Manifest:
    """V: weights, curves and pictures."""
    config, section, stage = run.config, run.config.vision, run.stage("vision")
    done = stage.complete()
    if done is not None:
        return done
    collected = run.need("collect")
    inputs = {"collect": collected.digest}
    if section.frozen:
        return reuse(section, inputs, stage, run)
    data = rollouts_of(collected)
    data.verify()
    game, device = load(config.game), pool.device(section.device)
    where = (data, run.uri, stage.folder, device, config.workers.checkpoint_seconds)
    made = run_training(VisionTraining(*where, section, game, config.seed), section, inputs, stage, pool)
    _warn_of_blindness(made)
    return made


def _warn_of_blindness(made: Manifest) -> None:
    shown = made.metrics.get("motion_shown")
    if shown is not None and shown < BLIND and made.extent >= TRAINED:
        log.warning(
            "vision: the reconstructions show %.0f%% of what changes between frames, so C may be blind to what moves:"
            " look at %s/vision/pictures, and try a larger --vision.change-weight, more --vision.steps or a lower"
            " --vision.kl-weight",
            100 * max(0.0, shown),
            made.storage.uri,
        )


@dataclass(frozen=True)
class VisionTraining(TrainingTask):
    """The training of V."""

    section: Vision
    game: Game
    seed: int

    name = "vision"

    @property
    def threads(self) -> int:
        return self.section.threads

    def learner(self) -> VisionLearner:
        return LEARNERS[self.section.kind](self.section, self.game, self.seed, self.data, self.device)

    def pictures(self, learner: VisionLearner, storage: Storage, folder: str) -> None:
        vision_pictures(learner.model, learner.measured, storage, folder)
