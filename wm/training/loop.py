"""The training loop of V and M, with logs, checkpoints and detection of divergence.

The order of data and all noise are pure functions of (seed, step), so a checkpoint contains the model, the optimisers
and the step, and a training that is killed and resumed ends in the same weights, bit for bit.
"""

import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from wm.errors import Failure
from wm.models.device import description
from wm.pool import Progress
from wm.runs.checkpoints import Checkpoints
from wm.runs.curves import write_curves
from wm.runs.reader import unpack
from wm.runs.storage import Storage, sha256
from wm.training.learner import Learner
from wm.training.tensorboard import event_file

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Finished:
    """The last report of a training."""

    step: int
    best_step: int
    weights: str  # key
    sha256: str
    metrics: dict[str, Any]


def train(
    learner: Learner, name: str, storage: Storage, folder: str, checkpoint_seconds: float
) -> Iterator[Progress | Finished]:
    """Train for the steps in the learner's section, from the last checkpoint if there is one."""
    section, checkpoints = learner.section, Checkpoints(storage, f"{folder}/checkpoints")
    rows: list[dict[str, float]] = []
    step, best = 0, _Best()
    found = checkpoints.newest()
    if found is not None:
        state, info = found
        learner.load_state(state)
        step, best, rows = info["step"], _Best(**info["best"]), info["rows"]
        log.info("%s resumes from step %d", name, step)
    else:
        rows.append(_measure(learner, 0))  # to detect divergence: a model that is worse than at the start
    saved, reported, waited, began, first = time.monotonic(), 0.0, 0.0, time.monotonic(), step
    measured: list[dict[str, Tensor]] = []

    def checkpoint() -> None:
        nonlocal saved
        write_curves(storage, f"{folder}/metrics.jsonl", rows)
        storage.put(f"{folder}/events.out.tfevents.0.{name}", event_file(name, rows))
        info = {"step": step, "best": vars(best), "rows": rows}
        checkpoints.save(step, learner.state(), info, keep=best.key)
        saved = time.monotonic()

    def progress() -> Progress:
        latest = {key: value for key, value in (rows[-1] if rows else {}).items() if key in ("loss", "held_out_loss")}
        return Progress(name, step, section.steps, "steps", latest)

    batches = learner.batches(step)
    yield progress()
    while step < section.steps:
        requested = time.monotonic()
        batch = next(batches)
        waited += time.monotonic() - requested
        measured.append(learner.step(step, batch))
        step += 1
        if step % section.evaluate_steps == 0 or step == section.steps:
            row = {key: float(torch.stack([losses[key] for losses in measured]).mean()) for key in measured[0]}
            measured.clear()
            rows.append(_measure(learner, step) | row)
            _refuse_divergence(name, rows, best, checkpoints)
            learner.check_progress(rows)
            held_out = rows[-1]["held_out_loss"]
            if learner.newest or held_out < best.loss:
                best = _Best(step, held_out, checkpoints.save_best(step, learner.weights()))
        now = time.monotonic()
        if now - saved >= checkpoint_seconds and _finite(learner.weights()):
            checkpoint()
        if now - reported >= 1:
            reported = now
            yield progress()
    checkpoint()
    yield progress()
    weights = checkpoints.read_best(best.key)
    key = f"{folder}/weights-{sha256(weights)[:12]}.safetensors"
    storage.commit(key, weights)
    final = next(row for row in rows if row["step"] == best.step)
    seconds = time.monotonic() - began
    metrics: dict[str, Any] = {key: value for key, value in final.items() if key not in ("step", "time")}
    learner.model.load_state_dict(unpack(weights)[0])  # the metrics below are those of the best weights
    metrics |= learner.measures()
    if step > first:
        metrics |= {"steps_per_second": (step - first) / seconds, "waited_for_data": waited / seconds}
    metrics |= description(learner.device)
    yield Finished(step, best.step, key, sha256(weights), metrics)


@dataclass
class _Best:
    step: int = 0
    loss: float = math.inf
    key: str = ""


def _measure(learner: Learner, step: int) -> dict[str, float]:
    held_out = {f"held_out_{key}": value for key, value in learner.evaluate().items()}
    return {"step": step, "time": round(time.time(), 3), **held_out}


def _finite(tensors: dict[str, Tensor]) -> bool:
    return all(bool(torch.isfinite(value).all()) for value in tensors.values())


def _refuse_divergence(name: str, rows: list[dict[str, float]], best: _Best, checkpoints: Checkpoints) -> None:
    """Raise a Failure for values that are not finite, or a held-out loss far above the one at the start."""
    row, first = rows[-1], rows[0]["held_out_loss"]
    wrong = [key for key, value in row.items() if not math.isfinite(value)]
    if not wrong and row["held_out_loss"] > first + abs(first) + 1:
        wrong = ["held_out_loss"]
    if wrong:
        raise Failure(
            f"{name} diverged at step {int(row['step'])} ({wrong[0]} is {row[wrong[0]]:.4g}); the best weights, of step"
            f" {best.step}, and the last checkpoint are kept in {checkpoints.folder}: start another run with a smaller"
            f" --{name}.learning-rate"
        )
