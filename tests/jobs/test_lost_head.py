"""A pipeline submitted to a cluster of several nodes resumes on a new head node after the first one is lost."""

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
    """Starts clusters that require a token, which this process has."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    made: list[Rays] = []

    def one() -> Rays:
        made.append(Rays(nodes=2, cpus=1, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=TOKEN))
        return made[-1]

    yield one
    for each in made:
        each.end()


def test_a_new_head_node_resumes_the_job_of_a_lost_one(
    tiny: Run, start: Callable[[], Rays], s3: Callable[[str], str], job: Callable[..., Job]
) -> None:
    uri = s3("lost")
    storage = open_storage(uri)
    first = start()
    # Without uploading code: the nodes of this cluster share a folder for it, unlike real ones, and would interfere.
    sent = job("submit", "pipeline", "tiny", "--run", uri, "--address", first.jobs, "--no-code")
    # During the evolution, after its first generation.
    sent.until(lambda: any("evolve/" in key and "step-0000000001" in key for key in storage.sizes()))
    [holder] = [json.loads(storage.get(key) or b"") for key in storage.sizes("lease")]
    first.end("lose")
    if Path(f"/proc/{holder['pid']}").exists():  # the driver ran on the same machine
        os.kill(holder["pid"], signal.SIGKILL)
    assert not stage_statuses(open_existing(uri))["score"].complete
    assert sent.wait() == 1
    assert "if the head is lost, so is the job, but the run is kept" in sent.stderr

    second = start()
    again = job("submit", "--resume", "--run", uri, "--address", second.jobs)
    assert again.wait() == 0, again.stderr
    name = uri.rpartition("/")[2]
    assert f"{name}-pipeline-1 was lost with its head node: submitting it again" in again.stderr
    assert again.summary["submission"] == f"{name}-pipeline-2"
    assert f"taking over the run from process {holder['pid']}" in again.stderr
    assert "evolve resumes from generation" in again.stderr

    stages = again.summary["summary"]["stages"]
    undisturbed = {name: status.manifest for name, status in stage_statuses(tiny).items()}
    for stage, manifest in undisturbed.items():
        assert manifest is not None
        assert stages[stage]["digest"] == manifest.digest
    assert stages["evolve"]["theta_sha256"] == undisturbed["evolve"].metrics["theta_sha256"]  # type: ignore[union-attr]
    assert stages["score"]["score"] == undisturbed["score"].metrics["score"]  # type: ignore[union-attr]
    assert not storage.sizes("lease")
