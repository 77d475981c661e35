"""Ray ends its driver when its raylet or GCS dies: the job says so in a line, and resumes with the same result."""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from chaos import CHAOS
from processes import Job, children_of
from slow_game import SLOW, WAIT

pytestmark = pytest.mark.usefixtures("slow_game")
MESSAGE = "failed: the job was ended from outside (it was killed, or a process of Ray was: raylet or GCS)"
PROGRAMS = {"raylet": b"/raylet/raylet", "GCS": b"gcs_server"}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost GCS is given up after seconds instead of a minute. Ray reads this when it starts."""
    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "5")


def process_of(driver: Job, what: str) -> int | None:
    """The pid of this process of the driver's own Ray, which is its child."""
    return next(iter(children_of(driver.process.pid, PROGRAMS[what])), None)


def shards(run: Path) -> int:
    return len(list(run.glob("collect/*.json")))


def collecting(run: Path, episodes: int, *words: str) -> list[object]:
    """Rollouts of a game that waits in each step: a lost GCS is noticed after many seconds only."""
    return ["collect", "tiny", "--run", run, "--game", SLOW, "--episodes", episodes, "--collect.steps", 40, *words]


def disturbed(
    run: Path, job: Callable[..., Job], episodes: int, kills: list[str], rng: random.Random
) -> tuple[Job, Counter[str]]:
    """Collect, with these processes of Ray killed one after the other, each after some more shards."""
    killed = Counter[str]()
    collect = partial(job, *collecting(run, episodes, "--workers.count", "1"))
    for what in kills:
        driver = collect()
        wanted = shards(run) + 1
        while shards(run) < wanted:
            assert driver.running, driver.stderr
            time.sleep(0.02)
        time.sleep(rng.random())
        if not driver.running or (pid := process_of(driver, what)) is None:
            break
        os.kill(pid, signal.SIGKILL)
        assert driver.wait() != 0, f"complete before {what} was missed"
        end = time.monotonic() + 30
        while MESSAGE not in driver.stderr:
            assert time.monotonic() < end, driver.stderr
            time.sleep(0.1)
        killed[what] += 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(WAIT, "0")
        driver = collect()
    assert driver.wait() == 0, driver.stderr
    return driver, killed


@pytest.mark.parametrize("what", ["raylet", "GCS"])
def test_a_killed_process_of_ray_ends_the_job_with_a_line(what: str, tmp_path: Path, job: Callable[..., Job]) -> None:
    driver, killed = disturbed(tmp_path / "run", job, 24, [what], random.Random(1))
    assert killed == {what: 1}
    assert MESSAGE not in driver.stderr


def test_a_job_that_ends_by_itself_says_nothing_of_the_kind(tmp_path: Path, job: Callable[..., Job]) -> None:
    driver = job(*collecting(tmp_path / "run", 2, "--workers.count", "1"))
    driver.until(lambda: driver.err.exists() and "stage" in driver.stderr)
    driver.send(signal.SIGINT)
    assert driver.wait() in (0, 130)
    assert MESSAGE not in driver.stderr


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_twenty_kills_of_raylet_and_gcs(
    tmp_path: Path, job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(5)
    kills = [rng.choice(["raylet", "GCS"]) for _ in range(20)]
    driver, killed = disturbed(tmp_path / "together", job, 400, kills, rng)
    monkeypatch.setenv(WAIT, "0")
    expected = job(*collecting(tmp_path / "alone", 400, "--local"))
    assert expected.wait() == 0, expected.stderr
    hashes = [one.summary["stages"]["collect"]["digest"] for one in (expected, driver)]
    CHAOS.add("collect, with Ray of its own", killed, *hashes)
    assert sum(killed.values()) == 20
    assert hashes[0] == hashes[1]
