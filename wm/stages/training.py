"""Shared parts of the stages that train V and M."""

from wm.config.schema import Training
from wm.pool import Pool, Progress, Task
from wm.runs.manifest import Manifest
from wm.runs.run import Run, Stage
from wm.training.loop import Finished
from wm.training.weights import manifest_in


def run_training(task: Task, section: Training, inputs: dict[str, str], stage: Stage, pool: Pool) -> Manifest:
    """Run the task, pass on its progress, and commit its result."""
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


def reuse(section: Training, inputs: dict[str, str], stage: Stage, run: Run) -> Manifest:
    """Another run's model, unchanged. It keeps its digest, so that results made with it can be reused."""
    manifest = manifest_in(section.init, stage.name)
    for key in manifest.content["files"]:
        run.storage.put(key, manifest.read(key))
    run.tell(Progress(stage.name, section.steps, section.steps, "steps"))
    return stage.commit(section.steps, inputs=inputs, content=manifest.content, metrics=manifest.metrics)
