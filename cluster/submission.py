"""Submits jobs to a cluster's job server, and records each submission in the run.

    submissions/0003.json      the third job submitted for this run: its id, stage and arguments

The job server's own list is lost with the head; the record in the run allows a resubmission to a new submission.
"""

import asyncio
import contextlib
import ipaddress
import logging
import os
import re
import shlex
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from wm.errors import Failure, UserError
from wm.runs.provenance import circumstances
from wm.runs.reader import read, sealed
from wm.runs.storage import Storage
from wm.schemas import boolean, integer, record, sequence, text

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parent.parent
ADDRESS = "http://localhost:8265"  # local end of the tunnel that `ray dashboard` opens
FOLDER = "submissions"
# Not needed on the nodes. Files in .gitignore and .rayignore are excluded as well.
EXCLUDES = [".git", ".venv", "runs", "tests", "docs", "docker", "*.pem", ".ray"]
NOISY_LOGGERS = (
    "ray._private.authentication",
    "ray._private.runtime_env.packaging",
    "ray._private.runtime_env.working_dir",
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
)
LOST_SECONDS = 60.0  # without a response from the job server, before `follow` gives up
HEAD_START_SECONDS = 180.0  # a new head may take this long to accept jobs
POLL_SECONDS = 1.0
AUTHENTICATE = "start every node with RAY_AUTH_MODE=token (docs/aws.md)"


@dataclass(frozen=True)
class Submission:
    """A submitted job. The fields are stored as JSON in the run."""

    id: str
    number: int
    stage: str
    words: list[str]  # command-line arguments
    at: str
    code: bool  # upload the local code; else use the code in the nodes' image

    @property
    def command(self) -> list[str]:
        return ["python", "-m", f"jobs.{self.stage}", *self.words]


SCHEMA = record(
    {
        "id": text(longest=200),
        "number": integer(),
        "stage": text("[a-z]+", longest=50),
        "words": sequence(text()),
        "at": text(longest=100),
        "code": boolean,
    }
)


def last(storage: Storage) -> Submission | None:
    """The latest submission for this run."""
    keys = [key for key in storage.sizes(FOLDER) if _number(key)]
    values = read(storage, keys[-1], SCHEMA, "delete it and submit the job again") if keys else None
    return None if values is None else Submission(**values)


def _number(key: str) -> int:
    name = key.rpartition("/")[2].removesuffix(".json")
    return int(name) if name.isdigit() else 0


def connect(address: str = "") -> JobSubmissionClient:
    """Connect to the job server at `address`, or raise a UserError that names the fix."""
    address = (address or os.environ.get("RAY_API_SERVER_ADDRESS", "") or ADDRESS).rstrip("/")
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(
            f"--address must be a URL such as http://HOST:8265, got {address} (or set RAY_API_SERVER_ADDRESS)"
        )
    if _open_to_anybody(address) and not _loopback(parts.hostname):
        raise UserError(f"refusing to submit to {address}, which accepts jobs without authentication: {AUTHENTICATE}")
    os.environ["RAY_API_SERVER_ADDRESS"] = address  # takes precedence over the argument in JobSubmissionClient
    for name in NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        return JobSubmissionClient(address)
    except AuthenticationError:
        raise UserError(
            f"the cluster at {address} requires a token: set RAY_AUTH_MODE=token, and copy the nodes' ~/.ray/auth_token"
            " to this machine or into RAY_AUTH_TOKEN"
        ) from None
    except (RuntimeError, OSError) as error:
        raise UserError(f"bad response from the job server at {address} ({_first_line(error)}): {_FIX}") from None


_FIX = "open the tunnel with `ray dashboard ray_cluster.yaml`, or start the head with `ray up ray_cluster.yaml`"


def _open_to_anybody(address: str) -> bool:
    """Whether it lists its jobs without a token."""
    try:
        with urllib.request.urlopen(f"{address}/api/jobs/", timeout=10) as answer:
            return answer.status == 200
    except urllib.error.HTTPError:
        return False
    except OSError as error:
        raise UserError(f"no job server at {address} ({_first_line(error)}): {_FIX}") from None


def _loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost" or host.endswith(".localhost")


def submit(
    client: JobSubmissionClient, storage: Storage, stage: str, words: list[str], metadata: dict[str, str], code: bool
) -> Submission:
    """Record the job in the run, then submit it, with the local code if `code` is set."""
    number = max((_number(key) for key in storage.sizes(FOLDER)), default=0)
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", storage.uri.rpartition("/")[2]).strip("-") or "run"
    while True:
        number += 1
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        submission = Submission(f"{name}-{stage}-{number}", number, stage, words, at, code)
        key = f"{FOLDER}/{number:04d}.json"
        if not storage.put_new(key, sealed(asdict(submission), key)):
            continue  # another process has just taken this number
        try:
            if _send(client, submission, {"run": storage.uri, "stage": stage, "attempt": str(number), **metadata}):
                return submission
        except BaseException:
            storage.delete(key)
            raise
        storage.delete(key)


def _send(client: JobSubmissionClient, submission: Submission, metadata: dict[str, str]) -> bool:
    """False if the cluster already has a job with this id, from another run of the same name."""
    end = time.monotonic() + HEAD_START_SECONDS
    while True:
        try:
            client.submit_job(
                entrypoint=f"exec {shlex.join(submission.command)}",  # exec: signals must reach the job
                submission_id=submission.id,
                runtime_env=_runtime_env() if submission.code else {},
                metadata=metadata,
            )
        except (RuntimeError, ValueError, OSError) as error:
            if "already exists" in str(error):
                return False
            if "No available agent" not in str(error) or time.monotonic() > end:
                raise UserError(f"the cluster rejected the job: {_first_line(error)}") from None
            time.sleep(POLL_SECONDS)
        else:
            return True


def _runtime_env() -> dict[str, Any]:
    """The runtime environment with the local source tree, or an empty one for an installed package."""
    if not (ROOT / "pyproject.toml").exists():
        log.info("not uploading code: the nodes use the code in their image (%s here)", circumstances()["code"])
        return {}
    return {"working_dir": str(ROOT), "excludes": EXCLUDES}


def status(client: JobSubmissionClient, id: str) -> JobStatus | None:
    """The job's status, or None if the cluster does not know the job."""
    try:
        return client.get_job_status(id)
    except RuntimeError as error:
        if _is_unknown_job(error):
            return None
        raise


def _is_unknown_job(error: Exception) -> bool:
    return "404" in str(error) or "does not exist" in str(error)


def follow(client: JobSubmissionClient, id: str, say: Callable[[str], None]) -> JobDetails:
    """Pass the job's log to `say` until the job ends, reconnecting as needed."""
    seen, last_response = 0, time.monotonic()
    while True:
        seen = asyncio.run(_tail(client, id, seen, say))
        try:
            details = client.get_job_info(id)
        except (RuntimeError, OSError) as error:
            if _is_unknown_job(error):
                raise Failure(f"{id} was lost with its head; the run is kept: use --resume to resubmit it") from None
            if time.monotonic() - last_response > LOST_SECONDS:
                raise Failure(
                    f"no response from the job server for {LOST_SECONDS:.0f} s ({_first_line(error)}): use --resume"
                    " once a head is reachable. If only the connection is down, the job continues; if the head is lost,"
                    " so is the job, but the run is kept"
                ) from None
            time.sleep(POLL_SECONDS)
            continue
        last_response = time.monotonic()
        if details.status.is_terminal():
            _flush_log(client, id, seen, say)
            return details
        time.sleep(POLL_SECONDS)


async def _tail(client: JobSubmissionClient, id: str, seen: int, say: Callable[[str], None]) -> int:
    """Pass on the log from character `seen`; return the number of characters seen now."""
    at = 0
    with contextlib.suppress(RuntimeError, OSError, aiohttp.ClientError):  # disconnected: keep what arrived
        async for text in client.tail_job_logs(id):
            say(text[max(0, seen - at) :])
            at += len(text)
    return max(seen, at)


def _flush_log(client: JobSubmissionClient, id: str, seen: int, say: Callable[[str], None]) -> None:
    """Pass on the rest of the log after the job has ended."""
    with contextlib.suppress(RuntimeError, OSError):
        say(client.get_job_logs(id)[seen:])


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
