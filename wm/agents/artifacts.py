"""Loads the models of a run."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import nn

from wm.models.agent import Models
from wm.models.build import models_of, new_memory, new_vision
from wm.models.memory import MDNRNN
from wm.models.vision import Vision
from wm.runs.cures import remake
from wm.runs.manifest import Manifest
from wm.runs.reader import Damaged, check_tensors, unpack
from wm.runs.run import Run
from wm.runs.storage import Storage, sha256
from wm.training.weights import load_weights


def load_vision(manifest: Manifest) -> Vision:
    model = new_vision(manifest.config["vision.kind"], manifest.config["vision.z"])
    _load(model, manifest)
    return model.eval()


def load_memory(manifest: Manifest, z: int) -> MDNRNN:
    model = new_memory(manifest.config, z)
    _load(model, manifest)
    return model.eval()


def _load(model: nn.Module, manifest: Manifest) -> None:
    try:
        load_weights(model, manifest)
    except RuntimeError:
        key = manifest.content["weights"]
        raise Damaged(
            f"{manifest.storage.uri}/{key}", f"it holds another {manifest.stage} model", manifest.cure(key)
        ) from None


def load_theta(manifest: Manifest) -> np.ndarray:
    """C's parameters. (N,) float64"""
    key = manifest.content["theta"]
    return _theta(manifest.read(key), f"{manifest.storage.uri}/{key}", manifest.cure(key))


def mean_key(folder: str, generation: int) -> str:
    """The mean of the distribution after a generation that was validated."""
    return f"{folder}/means/{generation:06d}.safetensors"


def load_mean(storage: Storage, folder: str, row: Mapping[str, Any]) -> np.ndarray:
    """The mean after the generation of this row of the curves. (N,) float64"""
    key = mean_key(folder, int(row["generation"]))
    file, cure = f"{storage.uri}/{key}", remake(storage, "evolve", f"restore it, or delete the folder {folder}")
    data = storage.get(key)
    if data is None:
        raise Damaged(file, "it is missing", cure)
    theta = _theta(data, file, cure)
    if sha256(theta.tobytes()) != row.get("theta_sha256"):
        raise Damaged(file, "its SHA-256 differs", cure)
    return theta


def _theta(data: bytes, file: str, cure: str) -> np.ndarray:
    tensors, _ = unpack(data, file, cure)
    size = tensors["theta"].numel() if "theta" in tensors else 0
    check_tensors(tensors, {"theta": (size,)}, file, cure)
    found: np.ndarray = tensors["theta"].numpy()
    return found


def model_manifests(run: Run) -> dict[str, Manifest]:
    """The V that a run's C works with and, if it needs one, the M, by stage."""
    return {name: run.need(name) for name in ("vision", "memory") if name == "vision" or run.config.uses_memory}


def load_models(run: Run) -> tuple[Models, dict[str, str]]:
    """The models that a run's C works with, and their digests by stage."""
    config, manifests = run.config, model_manifests(run)
    vision = load_vision(manifests["vision"])
    memory = load_memory(manifests["memory"], vision.z) if "memory" in manifests else None
    return models_of(config, vision, memory), {name: manifest.digest for name, manifest in manifests.items()}
