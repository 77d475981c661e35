"""Submitting jobs to a cluster that requires a token, following them and resuming them."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from processes import ROOT, Job
from rays import Rays

from cluster import submission
from jobs.runner import stage_job
from jobs.submit import SECTIONS, _absolute
from wm.errors import UserError
from wm.runs.run import open_existing
from wm.runs.storage import open_storage

TOKEN, WRONG = "a" * 64, "b" * 64


@pytest.fixture(scope="module")
def rays(s3: Callable[[str], str]) -> Iterator[Rays]:
    made = Rays(nodes=1, cpus=2, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=TOKEN)
    yield made
    made.end()


@pytest.fixture
def with_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)


def test_the_job_server_requires_the_token(rays: Rays) -> None:
    for path in ("/api/jobs/", "/api/version", "/nodes?view=summary"):
        assert rays.ask(path) == 401
        assert rays.ask(path, WRONG) == 403
        assert rays.ask(path, TOKEN) == 200


@pytest.mark.slow
def test_a_submitted_stage_is_followed_to_its_end(
    rays: Rays, with_token: None, s3: Callable[[str], str], job: Callable[..., Job]
) -> None:
    uri = s3("sent")
    sent = job("submit", "collect", "tiny", "--run", uri, "--episodes", 2, "--address", rays.jobs)
    assert sent.wait() == 0, sent.stderr
    name = uri.rpartition("/")[2]
    assert f"submitted as {name}-collect-1" in sent.stderr
    assert "1/1 shards" in sent.stderr  # the job's own log
    summary = sent.summary
    assert (summary["job"], summary["submission"], summary["status"]) == ("submit", f"{name}-collect-1", "SUCCEEDED")
    assert summary["summary"]["stages"]["collect"]["extent"] == 2
    assert open_existing(uri).stage("collect").complete(2)
    record = json.loads(open_storage(uri).get("submissions/0001.json") or b"")
    assert (record["stage"], record["words"]) == ("collect", ["tiny", "--run", uri, "--episodes", "2"])
    assert not open_storage(uri).sizes("lease")
    again = job("submit", "--resume", "--run", uri, "--address", rays.jobs)
    assert again.wait() == 0, again.stderr
    assert "is complete: nothing to resume" in again.stderr


@pytest.mark.slow
def test_a_job_keeps_running_when_it_is_no_longer_followed(
    rays: Rays, with_token: None, s3: Callable[[str], str], job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = s3("left")
    words = ("collect", "tiny", "--run", uri, "--episodes", 2000, "--address", rays.jobs)
    sent = job("submit", *words)
    sent.until(lambda: sent.err.exists() and "shards · " in sent.stderr)  # it is running
    sent.send(signal.SIGINT)
    assert sent.wait() == 130
    id = f"{uri.rpartition('/')[2]}-collect-1"
    assert f"{id} keeps running" in sent.stderr
    assert f"python -m jobs.submit --resume --run {uri}" in sent.stderr

    second = job("submit", *words)  # while the first one is running
    assert second.wait() == 2, second.stderr
    assert "is in use by process" in second.stderr
    open_storage(uri).delete("submissions/0002.json")

    back = job("submit", "--resume", "--run", uri, "--address", rays.jobs)
    back.until(lambda: back.err.exists() and "shards · " in back.stderr)
    assert f"{id} is still running" in back.stderr
    ray = [str(Path(sys.executable).with_name("ray")), "job", "stop", "--address", rays.jobs, id]
    subprocess.run(ray, check=True, capture_output=True, timeout=100)
    assert back.wait() == 130, back.stderr
    assert "interrupted; completed work is kept" in back.stderr
    assert back.summary["status"] == "STOPPED"


def test_without_the_right_token_nothing_is_submitted(
    rays: Rays, s3: Callable[[str], str], job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = s3("refused")
    for mode, token in (("disabled", ""), ("token", WRONG)):
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
        monkeypatch.setenv("RAY_AUTH_TOKEN", token)
        refused = job("submit", "collect", "tiny", "--run", uri, "--address", rays.jobs)
        assert refused.wait() == 2
        assert refused.stderr.splitlines()[-1].startswith(
            f"the cluster at {rays.jobs} requires a token: set RAY_AUTH_MODE=token"
        )
    assert open_storage(uri).sizes() == {}


@pytest.mark.slow
def test_ray_job_submit_works_too(rays: Rays, with_token: None, s3: Callable[[str], str]) -> None:
    uri = s3("plain")
    words = [Path(sys.executable).with_name("ray"), "job", "submit", "--address", rays.jobs, "--working-dir", ROOT]
    words += ["--submission-id", "plain-1", "--", "python", "-m", "jobs.collect", "tiny", "--run", uri]
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert open_existing(uri).stage("collect").complete(4)


@pytest.fixture
def open_server() -> Iterator[str]:
    """A job server without authentication."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"[]")

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_remote_clusters_without_authentication_are_refused(open_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert submission._open_to_anybody(open_server)
    for host, near in (("127.0.0.1", True), ("localhost", True), ("::1", True), ("10.0.0.7", False), ("head", False)):
        assert submission._loopback(host) is near
    monkeypatch.setattr(submission, "_loopback", lambda host: False)
    with pytest.raises(
        UserError, match=r"accepts jobs without authentication: start every node with RAY_AUTH_MODE=token"
    ):
        submission.connect(open_server)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("dance tiny --run RUN", "no stage dance: use one of pipeline, collect"),
        ("collect tiny --run RUN --episodes 5", "--collect.episodes must be a multiple"),
        ("collect tiny --run RUN --local", "remove --local"),
        (
            "collect tiny --run RUN --address ftp://head",
            "--address must be a URL such as http://HOST:8265, got ftp://head",
        ),
        ("collect tiny --run RUN --address http://127.0.0.1:9", "no job server at http://127.0.0.1:9"),
        ("--resume --run RUN", "no job was submitted for RUN yet"),
        ("--run RUN", "no stage: name one of pipeline, collect"),
    ],
)
def test_user_errors(words: str, message: str, tmp_path: Path, job: Callable[..., Job]) -> None:
    uri = str(tmp_path / "run")
    failed = job("submit", *words.replace("RUN", uri).split())
    assert failed.wait() == 2
    assert message.replace("RUN", uri) in failed.stderr
    assert "Traceback" not in failed.stderr
    assert not Path(uri).exists()


def test_relative_folders_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert _absolute("runs/a", "--run") == f"{tmp_path}/runs/a"
    assert _absolute("--base=runs/a", "tiny") == f"--base={tmp_path}/runs/a"
    assert _absolute("s3://bucket/a", "--run") == "s3://bucket/a"
    assert _absolute("runs/a", "--evolve.init") == "runs/a"


def test_every_stage_can_be_submitted() -> None:
    for path in (ROOT / "jobs").glob("*.py"):
        text = path.read_text()
        if f"{stage_job.__name__}(" in text and path.stem != "runner":
            section = SECTIONS[path.stem]
            assert section in (None, path.stem) or f'section="{section}"' in text


class Client:
    """A job server whose connections break."""

    def __init__(self, chunks: list[list[str]], statuses: list[Any]):
        self.chunks, self.statuses = chunks, statuses

    async def tail_job_logs(self, id: str) -> Any:
        for chunk in self.chunks.pop(0) if self.chunks else []:
            yield chunk
        raise RuntimeError("the socket was closed")

    def get_job_info(self, id: str) -> Any:
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        if isinstance(status, Exception):
            raise status

        class Details:
            pass

        Details.status = submission.JobStatus(status)  # type: ignore[attr-defined]
        return Details

    def get_job_logs(self, id: str) -> str:
        return "one\ntwo\nthree\nfour\n"


def test_an_interrupted_log_continues_where_it_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submission, "POLL_SECONDS", 0.01)
    client: Any = Client([["one\n", "tw"], ["one\ntwo\nth"]], ["RUNNING", ConnectionError("away"), "SUCCEEDED"])
    parts: list[str] = []
    assert submission.follow(client, "id", parts.append).status == "SUCCEEDED"
    assert "".join(parts) == "one\ntwo\nthree\nfour\n"


def test_a_lost_head_node_is_reported_with_the_command_to_resume(monkeypatch: pytest.MonkeyPatch) -> None:
    from wm.errors import Failure

    monkeypatch.setattr(submission, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(submission, "LOST_SECONDS", 0.1)
    for error in (ConnectionError("nobody there"), RuntimeError("Request failed with status code 404")):
        start = time.monotonic()
        with pytest.raises(Failure, match="--resume"):
            submission.follow(Client([], [error]), "id", print)  # type: ignore[arg-type]
        assert time.monotonic() - start < 10
