"""TODO"""

import numpy as np

from wm.config.schema import Config
from wm.models.build import untrained_memory, untrained_vision
from wm.models.memory import MDNRNN
from wm.models.vision import Vision
from wm.runs.checkpoints import unpack
from wm.runs.run import Manifest, Run, Stage
from wm.training.weights import load_weights


def load_memory(manifest: Manifest, z: int) -> MDNRNN:
    """The M that a manifest vouches for."""
    model = untrained_memory(manifest.config, z)
    load_weights(model, manifest)
    return model.eval()


def load_vision(manifest: Manifest) -> Vision:
    """The V that a manifest vouches for."""
    model = untrained_vision(manifest.config["vision.kind"], manifest.config["vision.z"])
    load_weights(model, manifest)
    return model.eval()


def parts(config: Config, run: Run) -> tuple[Stage, dict[str, str], Vision, MDNRNN | None]:
    """The stage, made of the V and M that C is to work with, and these."""
    made_of = run.need("vision", config.vision.steps, "train_vision")
    inputs = {"vision": made_of.digest}
    vision, memory = load_vision(made_of), None
    if config.controller.inputs != "z" or config.evolve.where == "dream":
        made_of = run.need("memory", config.memory.steps, "train_memory", of=made_of.digest)
        inputs["memory"] = made_of.digest
        memory = load_memory(made_of, config.vision.z)
    return run.stage("evolve", of=made_of.digest), inputs, vision, memory


def load_theta(manifest: Manifest) -> np.ndarray:
    """The C that a manifest vouches for. (N,) float64"""
    return unpack(manifest.read(manifest.content["theta"]))[0]["theta"].numpy()
