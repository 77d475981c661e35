"""Shared fixtures: an S3 server, jobs as processes, and complete runs that tests must not change."""

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from chaos import CHAOS
from filelock import FileLock
from processes import Job, type_in

from wm.pool import LocalPool
from wm.runs.run import Run, open_existing

os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # as for a local Ray on loopback


@pytest.fixture(scope="session")
def s3() -> Iterator[Callable[[str], str]]:
    """Returns URIs of new, empty prefixes in a bucket. The S3 server on loopback is also visible to child processes."""
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    patch = pytest.MonkeyPatch()
    patch.delenv("AWS_PROFILE", raising=False)
    patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    patch.setenv("AWS_ACCESS_KEY_ID", "anybody")
    patch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    patch.setenv("AWS_REGION", "us-east-1")
    boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="wm-tests")
    number = count()
    yield lambda name: f"s3://wm-tests/{name}-{next(number)}"
    patch.undo()
    server.stop()


@pytest.fixture(params=["folder", "s3"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URI of an empty folder or bucket prefix."""
    return request.getfixturevalue("s3")("place") if request.param == "s3" else str(tmp_path / "place")


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Callable[..., Job]]:
    """Starts `python -m jobs.NAME WORDS`. Jobs that still run after the test are killed."""
    jobs: list[Job] = []

    def start(name: str, *words: Any) -> Job:
        folder = tmp_path / f"job-{len(jobs)}"
        folder.mkdir()
        jobs.append(Job(folder, name, *words))
        return jobs[-1]

    yield start
    for one in jobs:
        if one.running:
            one.process.kill()
            one.process.join()


def made_once(factory: pytest.TempPathFactory, name: str, *words: str) -> Run:
    """A run made by jobs.pipeline, once for all test processes."""
    folder = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    uri = folder / name
    with FileLock(folder / f"{name}.lock"):
        if not (uri / "stderr").exists():
            made = type_in("jobs.pipeline", "tiny", "--run", uri, *words)
            assert made.returncode == 0, made.stderr
            (uri / "stdout").write_text(made.stdout)
            (uri / "stderr").write_text(made.stderr)
    return open_existing(str(uri))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A complete run of the preset `tiny`, made on a Ray with two workers. Read only."""
    return made_once(tmp_path_factory, "tiny", "--workers.count", "2")


@pytest.fixture(scope="session")
def cartpole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A complete run of a registered gymnasium game, with C evolved in the dream. Read only."""
    words = "--game gym:CartPole-v1 --collect.steps 20 --evolve.generations 1 --evolve.where dream --memory.done"
    words += " --evolve.dream-steps 16 --evolve.dream-done sample"
    return made_once(tmp_path_factory, "cartpole", "--local", *words.split())


@pytest.fixture
def copy(tiny: Run, tmp_path: Path) -> Callable[..., Path]:
    """Copies `tiny` without some of its stages, for tests that change the run."""
    number = count()

    def make(*without: str) -> Path:
        folder = tmp_path / f"copy-{next(number)}"
        shutil.copytree(tiny.uri, folder)
        for stage in without:
            shutil.rmtree(folder / stage)
        return folder

    return make


@pytest.fixture
def pool() -> LocalPool:
    return LocalPool()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what chaos tests killed."""
    if CHAOS.rows:
        terminalreporter.section("kills, and the hashes of the results")
        terminalreporter.write_line(CHAOS.table())
