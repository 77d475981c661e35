"""The whole pipeline on a cluster of several nodes, sent as a user sends it; the head is lost, another one goes on."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from processes import Job
from rays import Rays

from wm.runs.run import Run, open_existing
from wm.runs.status import stage_statuses
from wm.runs.storage import open_storage

TOKEN = "c" * 64
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


@pytest.fixture
def start(s3: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Rays]]:
    """Starts clusters that want the token, as this process has it."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    made: list[Rays] = []

    def one() -> Rays:
        made.append(Rays(nodes=2, cpus=1, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=TOKEN))
        return made[-1]

    yield one
    for each in made:
        each.end()


def test_a_new_head_takes_up_what_the_lost_one_left(
    tiny: Run, start: Callable[[], Rays], s3: Callable[[str], str], job: Callable[..., Job]
) -> None:
    uri = s3("lost")
    storage = open_storage(uri)
    first = start()
    # All these nodes share one folder for code that is sent, which no real ones do: they would take it from each other.
    sent = job("submit", "pipeline", "tiny", "--run", uri, "--address", first.jobs, "--no-code")
    # In the middle of the evolution: a generation is there, the last one is not.
    sent.until(lambda: any("evolve/" in key and "step-0000000001" in key for key in storage.sizes()))
    [holder] = [json.loads(storage.get(key) or b"") for key in storage.sizes("lease")]
    first.end("lose")
    if Path(f"/proc/{holder['pid']}").exists():  # the driver was on that machine, too
        os.kill(holder["pid"], signal.SIGKILL)
    assert not stage_statuses(open_existing(uri))[-1].complete
    assert sent.wait() == 1
    assert "if the head is lost, so is the job, but the run is kept" in sent.stderr

    second = start()
    again = job("submit", "--resume", "--run", uri, "--address", second.jobs)
    assert again.wait() == 0, again.stderr
    name = uri.rpartition("/")[2]
    assert f"{name}-pipeline-1 was lost with its head node: submitting it again" in again.stderr
    assert again.summary["submission"] == f"{name}-pipeline-2"
    assert f"taking over the run from process {holder['pid']}" in again.stderr
    assert "goes on from generation" in again.stderr

    stages = again.summary["summary"]["stages"]
    undisturbed = {station.stage: station.manifest for station in stage_statuses(tiny)}
    for stage, manifest in undisturbed.items():
        assert manifest is not None
        assert stages[stage]["digest"] == manifest.digest
    assert stages["evolve"]["theta_sha256"] == undisturbed["evolve"].metrics["theta_sha256"]  # type: ignore[union-attr]
    assert stages["score"]["score"] == undisturbed["score"].metrics["score"]  # type: ignore[union-attr]
    assert not storage.sizes("lease")
