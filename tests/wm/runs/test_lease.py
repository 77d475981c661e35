"""One job per run: dead holders on this machine are replaced at once, others after their lease has expired."""

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from wm.errors import UserError
from wm.runs import lease as leases
from wm.runs.lease import Lease, hold
from wm.runs.storage import open_storage

processes = multiprocessing.get_context("forkserver")  # obstore has threads, so no plain fork


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shortens a minute to two seconds."""
    monkeypatch.setattr(leases, "EXPIRY_SECONDS", 2.0)
    monkeypatch.setattr(leases, "RENEW_SECONDS", 0.5)
    monkeypatch.setattr(leases, "POLL_SECONDS", 0.1)


@pytest.fixture
def other(uri: str) -> Iterator[Callable[..., Any]]:
    """Starts a process that holds the lease of `uri` until it is killed."""
    started = []

    def start() -> Any:
        process = processes.Process(target=_hold_forever, args=(uri, dict(os.environ)))
        process.start()
        started.append(process)
        end = time.monotonic() + 60
        while not open_storage(uri).sizes("lease"):
            assert time.monotonic() < end
            time.sleep(0.01)
        return process

    yield start
    for one in started:
        one.kill()
        one.join()


def _hold_forever(uri: str, environment: dict[str, str]) -> None:
    os.environ.update(environment)  # the forkserver may have started before the bucket
    with hold(open_storage(uri)):
        time.sleep(1000)


def elsewhere(lease: Lease, monkeypatch: pytest.MonkeyPatch) -> Lease:
    """The lease as of a process on another machine."""
    lease.mine = replace(lease.mine, host="elsewhere", boot="another")
    return lease


def test_a_lease_is_released(uri: str) -> None:
    storage = open_storage(uri)
    for _ in range(3):
        with hold(storage) as lease:
            assert list(storage.sizes()) == ["lease/0001.json"]
            lease.check()
        assert storage.sizes() == {}
    with pytest.raises(ZeroDivisionError), hold(storage):
        raise ZeroDivisionError
    assert storage.sizes() == {}


def test_a_second_job_reports_the_holder(uri: str, other: Callable[..., Any]) -> None:
    first = other()
    with pytest.raises(UserError, match=rf"is in use by process {first.pid} on \S+, since .*--take-over"):
        Lease(open_storage(uri)).acquire()
    first.kill()
    first.join()
    with hold(open_storage(uri)):
        pass


def test_a_dead_local_holder_is_replaced_at_once(
    uri: str, other: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    dead = other()
    os.kill(dead.pid, signal.SIGKILL)  # it stays a zombie, whose pid is still in use
    end = time.monotonic() + 60
    while Lease(open_storage(uri))._newest()[1].is_alive():  # type: ignore[union-attr]
        assert time.monotonic() < end
    start = time.monotonic()
    with hold(open_storage(uri)):
        assert time.monotonic() - start < 5
        assert list(open_storage(uri).sizes()) == ["lease/0002.json"]
    assert f"taking over the run from process {dead.pid}" in caplog.text


def test_a_reused_pid_is_not_the_holder(uri: str) -> None:
    lease = Lease(open_storage(uri))
    lease.mine = replace(lease.mine, began="long ago")
    lease._take(1)
    with hold(open_storage(uri)):
        pass


def test_a_live_holder_elsewhere_keeps_its_lease(
    uri: str, quick: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    far = elsewhere(Lease(open_storage(uri)), monkeypatch)
    far.acquire()
    start = time.monotonic()
    with pytest.raises(UserError, match=r"process .* on elsewhere"):
        Lease(open_storage(uri)).acquire()
    assert time.monotonic() - start < 2
    assert "to see whether it is alive" in caplog.text
    far.check()
    far.release()


def test_a_silent_holder_elsewhere_is_replaced_after_a_wait(
    uri: str, quick: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    far = elsewhere(Lease(open_storage(uri)), monkeypatch)
    far._take(1)
    start = time.monotonic()
    with hold(open_storage(uri)):
        assert 1 < time.monotonic() - start < 10
    assert caplog.text.count("to see whether it is alive") == 1


def test_take_over_does_not_wait_and_stops_the_other_job(
    uri: str, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hold(open_storage(uri)) as first, hold(open_storage(uri), take_over=True):
        end = time.monotonic() + 60
        while not first.lost:
            assert time.monotonic() < end
            time.sleep(0.05)
        with pytest.raises(UserError, match=r"was taken over by process .*this job stops, completed work is kept"):
            first.check()


def test_renewal_survives_storage_errors(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    storage = open_storage(str(tmp_path))
    put, broken = storage.put, [3]

    def breaking(key: str, data: bytes) -> None:
        if broken[0]:
            broken[0] -= 1
            raise OSError("disk unavailable")
        put(key, data)

    monkeypatch.setattr(storage, "put", breaking)
    with hold(storage):
        before = json.loads((tmp_path / "lease/0001.json").read_text())["until"]
        end = time.monotonic() + 60
        while json.loads((tmp_path / "lease/0001.json").read_text())["until"] == before:
            assert time.monotonic() < end
            time.sleep(0.05)
    assert caplog.text.count("can't renew the lease of the run (disk unavailable)") == 1


def test_an_invalid_lease_is_refused(uri: str) -> None:
    open_storage(uri).put("lease/0001.json", b"{}")
    with pytest.raises(UserError, match=r"lease/0001.json is damaged \(its seal is missing\): .* delete it and run"):
        Lease(open_storage(uri)).acquire()


@pytest.mark.parametrize("rounds", [8, pytest.param(50, marks=pytest.mark.slow)])
def test_exactly_one_of_many_processes_gets_the_lease(uri: str, rounds: int) -> None:
    """In several rounds, in every other one after a killed holder."""
    storage, teams = open_storage(uri), 4
    barrier, answers = processes.Barrier(teams), processes.Queue()
    workers = [
        processes.Process(target=_compete, args=(uri, rounds, barrier, answers, dict(os.environ))) for _ in range(teams)
    ]
    for one in workers:
        one.start()
    results = [answers.get(timeout=200) for _ in range(teams * rounds)]
    for one in workers:
        one.join(200)
        assert one.exitcode == 0
    for number in range(rounds):
        assert sorted(word for of, word in results if of == number) == ["held"] + ["refused"] * (teams - 1), number
    assert storage.sizes("lease") == {}


def _compete(uri: str, rounds: int, barrier: Any, answers: Any, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    storage = open_storage(uri)
    for number in range(rounds):
        if barrier.wait(60) == 0 and number % 2:
            dead = Lease(storage)
            dead.mine = replace(dead.mine, began="died a moment ago")
            dead._take(1)
        barrier.wait(60)
        lease = Lease(storage)
        try:
            lease.acquire()
        except UserError:
            answers.put((number, "refused"))
            barrier.wait(60)
        else:
            answers.put((number, "held"))
            barrier.wait(60)
            lease.release()
