"""What the trainings of V and M have in common as stages: they run where they belong and resume by themselves."""

import time

from torch import nn

from wm.checkpoints import unpack
from wm.config import Training
from wm.mistakes import Mistake
from wm.pool import Pool, Task
from wm.run import Manifest, Progress, Run, Stage, must_open
from wm.train import Finished


def conduct(task: Task, section: Training, inputs: dict[str, str], stage: Stage, run: Run, pool: Pool) -> Manifest:
    """Run the training, pass on its progress, and commit what it made."""
    start = time.monotonic()
    finished: Finished | None = None
    for report in pool.stream(task):
        if isinstance(report, Progress):
            run.tell(report)
        else:
            finished = report
    assert finished is not None, "a training ended without a result"
    return stage.commit(
        section.steps,
        inputs=inputs,
        content={"weights": finished.weights, "files": {finished.weights: finished.sha256}},
        metrics=finished.metrics | {"steps": finished.step, "best_step": finished.best_step, "device": task.device},
        seconds=time.monotonic() - start,
    )


def start_from(model: nn.Module, uri: str, stage: str) -> None:
    """Give an untrained model the weights of another run's."""
    if not uri:
        return
    manifest = must_open(uri).stage(stage).manifest()
    if manifest is None:
        raise Mistake(f"no complete {stage} in {uri} to start from: complete it there, or leave --{stage}.init out")
    try:
        load_weights(model, manifest)
    except RuntimeError:
        raise Mistake(
            f"the {stage} in {uri} has another shape than this run's: give --{stage}.init a run of the same sizes"
        ) from None


def load_weights(model: nn.Module, manifest: Manifest) -> None:
    model.load_state_dict(unpack(manifest.read(manifest.content["weights"]))[0])
