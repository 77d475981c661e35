"""What the trainings of V and M have in common as stages: they run where they belong and resume by themselves."""

from wm.config.schema import Training
from wm.pool import Pool, Progress, Task
from wm.runs.run import Manifest, Run, Stage
from wm.training.loop import Finished
from wm.training.weights import _made_in


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
        run.storage.put(key, manifest.read(key))
    run.tell(Progress(stage.name, section.steps, section.steps, "steps"))
    return stage.commit(section.steps, inputs=inputs, content=manifest.content, metrics=manifest.metrics)
