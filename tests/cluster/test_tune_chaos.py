"""A search that loses its driver three times and a node once gives the same table as an undisturbed one."""

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from processes import Job

from wm.runs.run import Run

SEARCH = ("--search", "evolve.sigma0=0.02..0.3 log 4", "--search", "evolve.covariance=full,diagonal")
TRIALS = 8


def files(folder: Path) -> dict[Path, tuple[int, int]]:
    found = (path for path in folder.rglob("*") if path.is_file() and path.parent.name != "lease")
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}


def complete(search: Path) -> set[Path]:
    return {path.parents[2] for path in search.glob("trials/*/evolve/*/manifest-*.json")}


def checkpoints(search: Path) -> int:
    return len(list(search.glob("trials/*/evolve/*/checkpoints/step-*")))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_search_survives_three_kills_and_a_lost_node(
    tiny: Run, tmp_path: Path, cluster: Any, node: Callable[..., Any], job: Callable[..., Job]
) -> None:
    words = ("tune", "--base", tiny.uri, *SEARCH, "--searcher", "grid", "--no-score")
    calm = job(*words, "--run", tmp_path / "calm", "--local")
    search, rng = tmp_path / "search", random.Random(1)
    again = (*words, "--run", search, "--address", cluster.address, "--cpus-each", 2)

    def after(done: int) -> Callable[[], bool]:
        """Once so many trials are complete, and then at a random moment."""
        end: list[float] = []

        def reached() -> bool:
            if len(complete(search)) >= done and not end:
                end.append(time.monotonic() + rng.uniform(0, 2))
            return bool(end) and time.monotonic() >= end[0]

        return reached

    kept: dict[Path, Any] = {}
    for done in (1, 2, 3):
        job(*again).kill_when(after(done))
        kept |= {folder: files(folder) for folder in complete(search)}
    # A trial's workers are lost together with the process that drives them, which is on the node that has room.
    lost = node(2)
    last = job(*again)
    last.until(lambda: checkpoints(search) > 0 and len(complete(search)) >= 4)
    cluster.remove_node(lost, allow_graceful=False)
    assert last.wait() == 0, last.stderr
    assert calm.wait() == 0, calm.stderr
    assert len(complete(search)) == TRIALS
    for folder, before in kept.items():
        assert files(folder) == before, "a complete trial was touched again"
        assert folder.name not in last.summary["made"]
    for name in ("table.md", "table.csv"):
        ours, theirs = ((folder / name).read_text() for folder in (search, tmp_path / "calm"))
        assert ours.replace(str(search), "") == theirs.replace(str(tmp_path / "calm"), "")
    assert not (search / "outcomes").exists()  # a lost node is no failure
