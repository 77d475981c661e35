"""Runs survive failing S3 requests and temporary outages, and nothing is corrupted."""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from faults import FAULTS, Faults

import wm.runs.storage as storage_module
from wm.config.presets import PRESETS
from wm.errors import UserError
from wm.pipeline import pipeline
from wm.pool import LocalPool, Progress
from wm.runs.datasets import latents_of, own_rollouts
from wm.runs.run import Run, start_run
from wm.runs.shards import DataSet
from wm.runs.storage import open_storage


@pytest.fixture
def faults(s3: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Faults]:
    made = Faults(os.environ["AWS_ENDPOINT_URL"])
    monkeypatch.setenv("AWS_ENDPOINT_URL", made.endpoint)
    monkeypatch.setattr(storage_module, "REQUEST_SECONDS", 0.5)  # notice missing responses soon
    logging.getLogger("wm.runs.storage").setLevel(logging.ERROR)
    yield made
    logging.getLogger("wm.runs.storage").setLevel(logging.NOTSET)
    made.close()


def test_all_operations_survive_frequent_failures(faults: Faults, s3: Callable[[str], str]) -> None:
    storage = open_storage(s3("often"))
    faults.share = 0.3
    data = [os.urandom(100_000 + number) for number in range(6)]
    for number, one in enumerate(data):
        assert storage.put_new(f"new/{number}", one)  # True even if only the response was lost
        assert not storage.put_new(f"new/{number}", b"other")
        storage.put(f"put/{number}", one)
        assert storage.get(f"new/{number}") == one
        assert storage.get("nothing") is None
        file = storage.open(f"put/{number}")
        file.seek(90_000)
        assert bytes(file.read()) == one[90_000:]
    storage.delete("put/0")
    assert sorted(storage.sizes("new").values()) == [len(one) for one in data]
    assert len(storage.sizes()) == 11
    assert set(faults.done) == {*FAULTS, "none"}


def test_exactly_one_writer_wins_even_if_responses_are_lost(faults: Faults, s3: Callable[[str], str]) -> None:
    uri = s3("race")
    faults.share = 0.3
    barrier = threading.Barrier(8)

    def attempt(number: int) -> list[bool]:
        storage, won = open_storage(uri), []
        for key in range(3):
            barrier.wait()
            won.append(storage.put_new(str(key), b"%d" % number))
        return won

    with ThreadPoolExecutor(8) as threads:
        won = list(threads.map(attempt, range(8)))
    for key in range(3):
        winners = [number for number, each in enumerate(won) if each[key]]
        assert len(winners) == 1
        assert open_storage(uri).get(str(key)) == b"%d" % winners[0]


def test_the_pipeline_survives_a_failure_in_ten_requests(faults: Faults, s3: Callable[[str], str], tiny: Run) -> None:
    assert same_as(tiny, faults, s3("tenth"), 0.1)
    assert sum(faults.done[fault] for fault in FAULTS) > 10


@pytest.mark.parametrize("seconds", [4.0, pytest.param(30.0, marks=pytest.mark.slow)])
def test_the_pipeline_survives_an_outage(faults: Faults, s3: Callable[[str], str], tiny: Run, seconds: float) -> None:
    assert same_as(tiny, faults, s3("away"), 0.0, away=seconds)
    assert faults.done["away"] >= 3


def same_as(tiny: Run, faults: Faults, uri: str, share: float, away: float = 0.0) -> bool:
    """Whether the pipeline gives the same results at this URI; also checks all files that its manifests name."""
    config = PRESETS["tiny"]
    run = start_run(uri, "tiny", config)
    gone = []

    def tell(progress: Progress) -> None:
        if away and not gone and progress.stage == "evolve" and progress.done == 1:
            gone.append(faults.stay_away(away))

    run.tell, faults.share = tell, share
    made = pipeline(run, LocalPool())
    faults.share = 0.0
    before = pipeline(tiny, LocalPool())
    for manifest in made:
        for key in manifest.content.get("files", {}):
            manifest.read(key)
    sets: list[DataSet] = [own_rollouts(made[0]), latents_of(made[2])]
    for one in sets:
        one.verify()
    return [one.digest for one in made] == [one.digest for one in before]


def test_retries_end_after_a_while(faults: Faults, s3: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_module, "RETRY_SECONDS", 1.0)
    storage = open_storage(s3("gone"))
    faults.away = True
    start = time.monotonic()
    with pytest.raises(OSError, match="S3"):
        storage.get("key")
    assert time.monotonic() - start < 20


def test_permanent_errors_are_raised_at_once(faults: Faults, s3: Callable[[str], str]) -> None:
    start = time.monotonic()
    with pytest.raises(UserError, match="no bucket nobody-made-this: create it"):
        start_run("s3://nobody-made-this/run", "tiny", PRESETS["tiny"])
    assert time.monotonic() - start < 10
