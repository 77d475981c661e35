"""An hour of evolution on two nodes with a kill a minute: the same bits, and flat memory (`make soak`)."""

import contextlib
import os
import random
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from chaos import CHAOS, kill_a_worker, lose_a_node, workers_of
from processes import Job
from slow_game import SLOW, WAIT

from cluster import runtime
from wm.config.presets import PRESETS
from wm.pipeline import stage_function
from wm.pool import LocalPool
from wm.runs.run import start_run
from wm.runs.stages import STAGES

SECONDS = float(os.environ.get("SOAK_SECONDS", "3600"))
BETWEEN = min(60.0, SECONDS / 20)  # seconds from one kill to the next
SETTLED = 20.0  # seconds until a new process has imported everything
GROWTH = 1.05
ROLLOUT = {runtime.ROLE: "rollout"}
PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.fixture(scope="module")
def slow_learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the slow game with V and M but without C."""
    folder = tmp_path_factory.mktemp("slow")
    tiny = PRESETS["tiny"]
    config = replace(tiny, game=SLOW, evolve=replace(tiny.evolve, patience=0))
    run = start_run(str(folder / "learned"), "tiny", config)
    for name in tuple(STAGES)[:-2]:  # all stages but evolve and score
        stage_function(name)(run, LocalPool())
    return folder / "learned"


class Memory:
    """The resident memory of processes over time, by kind."""

    def __init__(self) -> None:
        self.began, self.seen = time.monotonic(), dict[int, float]()
        self.samples: dict[str, list[tuple[float, float]]] = defaultdict(list)

    def sample(self, name: str, pid: int) -> None:
        now = time.monotonic()
        if now - self.seen.setdefault(pid, now) < SETTLED:
            return
        with contextlib.suppress(OSError):
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            self.samples[name].append((now - self.began, pages * PAGE_MB))

    def thirds(self, name: str) -> list[float]:
        """The median in each third of the time, in MB."""
        end = self.samples[name][-1][0]
        parts: list[list[float]] = [[], [], []]
        for at, megabytes in self.samples[name]:
            parts[min(2, int(3 * at / end))].append(megabytes)
        return [median(part) for part in parts]


@pytest.mark.slow
@pytest.mark.usefixtures("slow_game")
@pytest.mark.timeout(3 * SECONDS + 1200)
def test_an_hour_with_a_kill_a_minute(
    slow_learned: Path,
    tmp_path: Path,
    job: Callable[..., Job],
    cluster: Any,
    node: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The driver is killed in the first third only, so that its memory can be compared over the other two."""
    rng, kills, memory = random.Random(1), Counter[str](), Memory()
    nodes = [node(2, labels=ROLLOUT) for _ in range(2)]
    evolution = ["evolve", "--run", tmp_path / "together", "--address", cluster.address, "--base", slow_learned]
    evolution += ["--validate-every", 50, "--generations"]
    driver, began, killed = job(*evolution, 1_000_000), time.monotonic(), time.monotonic()
    while (now := time.monotonic() - began) < SECONDS:
        time.sleep(2)
        assert driver.running, driver.stderr
        memory.sample("driver", driver.process.pid)
        memory.sample("GCS", cluster.head_node.all_processes["gcs_server"][0].process.pid)
        for one in nodes:
            for pid in workers_of(one):
                memory.sample("workers", pid)
        if time.monotonic() - killed < BETWEEN:
            continue
        killed = time.monotonic()
        what = rng.choices(["worker", "node", "driver"], [85, 10, 5 if now < SECONDS / 3 else 0])[0]
        if what == "worker":
            if not kill_a_worker(nodes, rng):
                continue
        elif what == "node":
            lose_a_node(nodes, lambda: node(2, labels=ROLLOUT))
        else:
            driver.send(signal.SIGKILL)
            driver.process.join()
            driver = job(*evolution, 1_000_000)
        kills[what] += 1
    driver.send(signal.SIGTERM)
    driver.process.join()
    (metrics,) = tmp_path.glob("together/evolve/*/metrics.jsonl")
    generations = metrics.read_text().count("\n") + 1
    finished = job(*evolution, generations)
    monkeypatch.setenv(WAIT, "0")
    undisturbed = job("evolve", "--run", tmp_path / "alone", "--local", *evolution[5:], generations)
    for one in (finished, undisturbed):
        one.process.join()
        assert one.process.exitcode == 0, one.stderr
    hashes = [one.summary["stages"]["evolve"]["theta_sha256"] for one in (undisturbed, finished)]
    CHAOS.add(f"evolve, {generations:,} generations in {SECONDS / 60:.0f} minutes", kills, *hashes)
    thirds = {name: memory.thirds(name) for name in ("driver", "workers", "GCS")}
    for name, values in thirds.items():
        CHAOS.notes.append(
            f"memory of {name}, median MB in each third: " + ", ".join(f"{value:.0f}" for value in values)
        )
    assert hashes[0] == hashes[1]
    for name in ("driver", "workers"):
        assert thirds[name][2] < GROWTH * thirds[name][1], thirds
