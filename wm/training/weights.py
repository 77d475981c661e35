"""Initial weights from the models of other runs."""

from torch import nn

from wm.errors import UserError
from wm.runs.manifest import Manifest
from wm.runs.reader import check_finite, unpack
from wm.runs.run import open_existing


def manifest_in(uri: str, stage: str) -> Manifest:
    """The manifest of another run's V or M."""
    run = open_existing(uri)
    vision = run.stage("vision").manifest()
    manifest = vision if stage == "vision" or vision is None else run.stage(stage, of=vision.digest).manifest()
    if manifest is None:
        raise UserError(
            f"no completed {stage} stage in {uri} to start from: complete it there, or remove --{stage}.init"
        )
    return manifest


def start_from(model: nn.Module, uri: str, stage: str) -> None:
    """Load the weights of the run at this URI, if there is one."""
    if not uri:
        return
    manifest = manifest_in(uri, stage)
    try:
        load_weights(model, manifest)
    except RuntimeError:
        raise UserError(
            f"the {stage} model in {uri} has other sizes than this run's: use an --{stage}.init run of the same sizes"
        ) from None


def load_weights(model: nn.Module, manifest: Manifest) -> None:
    key = manifest.content["weights"]
    file, cure = f"{manifest.storage.uri}/{key}", manifest.cure(key)
    tensors, _ = unpack(manifest.read(key), file, cure)
    check_finite(tensors, file, cure)
    model.load_state_dict(tensors)
