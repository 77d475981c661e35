"""A run in bfloat16 is a pure function of its config, like any other."""

from collections.abc import Callable
from pathlib import Path

from processes import Job

from wm.runs.run import open_existing
from wm.runs.status import stage_statuses

HALF = [word for section in ("vision", "memory", "controller") for word in (f"--{section}.precision", "bfloat16")]


def digests(uri: Path) -> dict[str, str]:
    found = {name: status.manifest for name, status in stage_statuses(open_existing(str(uri))).items()}
    return {name: manifest.digest for name, manifest in found.items() if manifest}


def test_a_run_in_bfloat16_is_the_same_for_any_workers_and_kills(tmp_path: Path, job: Callable[..., Job]) -> None:
    words = ("pipeline", "tiny", *HALF, "--score.episodes", 1, "--workers.checkpoint-seconds", 0.001)
    alone, together = tmp_path / "alone", tmp_path / "together"
    undisturbed = job(*words, "--run", alone, "--local")
    assert undisturbed.wait() == 0, undisturbed.stderr
    killed = job(*words, "--run", together, "--workers.count", 2)
    killed.kill_when(lambda: any(together.glob("vision/checkpoints/step-*3-*")))
    last = job(*words, "--run", together, "--workers.count", 2)
    assert last.wait() == 0, last.stderr
    assert len(digests(alone)) == 6
    assert digests(together) == digests(alone)
    assert open_existing(str(alone)).config.controller.precision == "bfloat16"
