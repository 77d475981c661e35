"""Loads the models of a run."""

import numpy as np

from wm.models.agent import Models
from wm.models.build import models_of, new_memory, new_vision
from wm.models.memory import MDNRNN
from wm.models.vision import Vision
from wm.runs.checkpoints import unpack
from wm.runs.manifest import Manifest
from wm.runs.run import Run
from wm.training.weights import load_weights


def load_vision(manifest: Manifest) -> Vision:
    model = new_vision(manifest.config["vision.kind"], manifest.config["vision.z"])
    load_weights(model, manifest)
    return model.eval()


def load_memory(manifest: Manifest, z: int) -> MDNRNN:
    model = new_memory(manifest.config, z)
    load_weights(model, manifest)
    return model.eval()


def load_theta(manifest: Manifest) -> np.ndarray:
    """C's parameters. (N,) float64"""
    return unpack(manifest.read(manifest.content["theta"]))[0]["theta"].numpy()


def model_manifests(run: Run) -> dict[str, Manifest]:
    """The V that a run's C works with and, if it needs one, the M, by stage."""
    return {name: run.need(name) for name in ("vision", "memory") if name == "vision" or run.config.uses_memory}


def load_models(run: Run) -> tuple[Models, dict[str, str]]:
    """The models that a run's C works with, and their digests by stage."""
    config, manifests = run.config, model_manifests(run)
    vision = load_vision(manifests["vision"])
    memory = load_memory(manifests["memory"], vision.z) if "memory" in manifests else None
    return models_of(config, vision, memory), {name: manifest.digest for name, manifest in manifests.items()}
