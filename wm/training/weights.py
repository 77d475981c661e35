"""TODO"""

from torch import nn

from wm.errors import UserError
from wm.runs.checkpoints import unpack
from wm.runs.run import Manifest, open_existing


def _made_in(uri: str, stage: str) -> Manifest:
    """The V or M of another run."""
    run = open_existing(uri)
    vision = run.stage("vision").manifest()
    manifest = vision if stage == "vision" or vision is None else run.stage(stage, of=vision.digest).manifest()
    if manifest is None:
        raise UserError(f"no complete {stage} in {uri} to start from: complete it there, or leave --{stage}.init out")
    return manifest


def start_from(model: nn.Module, uri: str, stage: str) -> None:
    """Give an untrained model the weights of another run's."""
    if not uri:
        return
    manifest = _made_in(uri, stage)
    try:
        load_weights(model, manifest)
    except RuntimeError:
        raise UserError(
            f"the {stage} in {uri} has another shape than this run's: give --{stage}.init a run of the same sizes"
        ) from None


def load_weights(model: nn.Module, manifest: Manifest) -> None:
    model.load_state_dict(unpack(manifest.read(manifest.content["weights"]))[0])
