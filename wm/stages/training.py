"""What the trainings of V and M have in common as stages: they run where they belong and resume by themselves."""

from torch import nn

from wm.checkpoints import unpack
from wm.config import Training
from wm.mistakes import Mistake
from wm.pool import Pool, Task
from wm.run import Manifest, Progress, Run, Stage, must_open
from wm.train import Finished


def conduct(task: Task, section: Training, inputs: dict[str, str], stage: Stage, run: Run, pool: Pool) -> Manifest:
    """Run the training, pass on its progress, and commit what it made."""
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


def take_over(section: Training, inputs: dict[str, str], stage: Stage, run: Run) -> Manifest:
    """Another run's model as this one's: the same content, so what was made of it there can be told to be of it."""
    manifest = _made_in(section.init, stage.name)
    for key in manifest.content["files"]:
        run.place.put(key, manifest.read(key))
    run.tell(Progress(stage.name, section.steps, section.steps, "steps"))
    return stage.commit(section.steps, inputs=inputs, content=manifest.content, metrics=manifest.metrics)


def _made_in(uri: str, stage: str) -> Manifest:
    """The V or M of another run."""
    run = must_open(uri)
    vision = run.stage("vision").manifest()
    manifest = vision if stage == "vision" or vision is None else run.stage(stage, of=vision.digest).manifest()
    if manifest is None:
        raise Mistake(f"no complete {stage} in {uri} to start from: complete it there, or leave --{stage}.init out")
    return manifest


def start_from(model: nn.Module, uri: str, stage: str) -> None:
    """Give an untrained model the weights of another run's."""
    if not uri:
        return
    manifest = _made_in(uri, stage)
    try:
        load_weights(model, manifest)
    except RuntimeError:
        raise Mistake(
            f"the {stage} in {uri} has another shape than this run's: give --{stage}.init a run of the same sizes"
        ) from None


def load_weights(model: nn.Module, manifest: Manifest) -> None:
    model.load_state_dict(unpack(manifest.read(manifest.content["weights"]))[0])
