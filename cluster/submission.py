"""Jobs sent to a cluster through Ray's job server, and the record of them that the run itself keeps.

    submissions/0003.json      the third job sent for this run: its id, its stage and its words

A head that is lost takes its list of jobs with it. The run itself knows what was last asked for it.
"""

import asyncio
import contextlib
import ipaddress
import json
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
from wm.runs.storage import Storage, to_json

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parent.parent
ADDRESS = "http://localhost:8265"  # where `ray dashboard ray_cluster.yaml` puts it
FOLDER = "submissions"
# What the nodes have no use for; what .gitignore and .rayignore name is left here as well.
EXCLUDES = [".git", ".venv", "runs", "tests", "docs", "docker", "*.pem", ".ray"]
CHATTY = (
    "ray._private.authentication",
    "ray._private.runtime_env.packaging",
    "ray._private.runtime_env.working_dir",
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
)
LOST_SECONDS = 60.0  # without an answer of the job server, after which nobody waits any longer
START_SECONDS = 180.0  # for a head that has only just started to be ready for jobs
POLL_SECONDS = 1.0
AUTHENTICATE = "start every node with RAY_AUTH_MODE=token (docs/aws.md)"


@dataclass(frozen=True)
class Submission:
    """A job as it was asked for."""

    id: str
    number: int
    stage: str
    words: list[str]
    at: str
    code: bool  # sent along, or that of the nodes' image

    @property
    def command(self) -> list[str]:
        return ["python", "-m", f"jobs.{self.stage}", *self.words]


def last(storage: Storage) -> Submission | None:
    """What was sent last for this run."""
    keys = [key for key in storage.sizes(FOLDER) if _number(key)]
    data = storage.get(keys[-1]) if keys else None
    if data is None:
        return None
    try:
        return Submission(**json.loads(data))
    except (ValueError, TypeError):
        raise UserError(
            f"{storage.uri}/{keys[-1]} is no record of ours: remove it and give the same command again"
        ) from None


def _number(key: str) -> int:
    name = key.rpartition("/")[2].removesuffix(".json")
    return int(name) if name.isdigit() else 0


def connect(address: str = "") -> JobSubmissionClient:
    """The job server there, or the Mistake that says what is missing."""
    address = (address or os.environ.get("RAY_API_SERVER_ADDRESS", "") or ADDRESS).rstrip("/")
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(f"{address} is no job server: say --address http://HOST:8265, or set RAY_API_SERVER_ADDRESS")
    if _open_to_anybody(address) and not _loopback(parts.hostname):
        raise UserError(
            f"the cluster at {address} obeys anybody who can reach it, so nothing is sent there: {AUTHENTICATE}"
        )
    os.environ["RAY_API_SERVER_ADDRESS"] = address  # Ray lets it overrule whatever it is told
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        return JobSubmissionClient(address)
    except AuthenticationError:
        raise UserError(
            f"the cluster at {address} wants its token: set RAY_AUTH_MODE=token, and put what is in its nodes'"
            " ~/.ray/auth_token into yours, or into RAY_AUTH_TOKEN"
        ) from None
    except (RuntimeError, OSError) as error:
        raise UserError(f"the job server at {address} does not answer as it should ({_line(error)}): {_CURE}") from None


_CURE = "is the tunnel open (`ray dashboard ray_cluster.yaml`), the head up (`ray up ray_cluster.yaml`)?"


def _open_to_anybody(address: str) -> bool:
    """Whether it tells its jobs to somebody without a token."""
    try:
        with urllib.request.urlopen(f"{address}/api/jobs/", timeout=10) as answer:
            return answer.status == 200
    except urllib.error.HTTPError:
        return False
    except OSError as error:
        raise UserError(f"no job server answers at {address} ({_line(error)}): {_CURE}") from None


def _loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost" or host.endswith(".localhost")


def submit(
    client: JobSubmissionClient, storage: Storage, stage: str, words: list[str], metadata: dict[str, str], code: bool
) -> Submission:
    """Record it in the run, then send it, with the code that is here or without."""
    newest = max((_number(key) for key in storage.sizes(FOLDER)), default=0)
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", storage.uri.rpartition("/")[2]).strip("-") or "run"
    while True:
        newest += 1
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        one = Submission(f"{name}-{stage}-{newest}", newest, stage, words, at, code)
        key = f"{FOLDER}/{newest:04d}.json"
        if not storage.put_new(key, to_json(asdict(one))):
            continue  # somebody else sends one at this moment
        try:
            if _send(client, one, {"run": storage.uri, "stage": stage, "attempt": str(newest), **metadata}):
                return one
        except BaseException:
            storage.delete(key)
            raise
        storage.delete(key)


def _send(client: JobSubmissionClient, one: Submission, metadata: dict[str, str]) -> bool:
    """False where the cluster has a job of that id already: another run's of the same name."""
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            client.submit_job(
                entrypoint=f"exec {shlex.join(one.command)}",  # no shell in between: signals have to reach the job
                submission_id=one.id,
                runtime_env=_code() if one.code else {},
                metadata=metadata,
            )
        except (RuntimeError, ValueError, OSError) as error:
            if "already exists" in str(error):
                return False
            if "No available agent" not in str(error) or time.monotonic() > end:
                raise UserError(f"the cluster does not take the job: {_line(error)}") from None
            time.sleep(POLL_SECONDS)
        else:
            return True


def _code() -> dict[str, Any]:
    """This project as it is here. Where it is merely installed, so it is on the nodes, in their image."""
    if not (ROOT / "pyproject.toml").exists():
        log.info("nothing to send: the nodes have the code in their image (%s here)", circumstances()["code"])
        return {}
    return {"working_dir": str(ROOT), "excludes": EXCLUDES}


def status(client: JobSubmissionClient, id: str) -> JobStatus | None:
    """How it is with that job; None where the cluster has never heard of it."""
    try:
        return client.get_job_status(id)
    except RuntimeError as error:
        if _unknown(error):
            return None
        raise


def _unknown(error: Exception) -> bool:
    return "404" in str(error) or "does not exist" in str(error)


def follow(client: JobSubmissionClient, id: str, say: Callable[[str], None]) -> JobDetails:
    """Pass on the job's log until it ends, however often the way there breaks."""
    seen, heard = 0, time.monotonic()
    while True:
        seen = asyncio.run(_tail(client, id, seen, say))
        try:
            details = client.get_job_info(id)
        except (RuntimeError, OSError) as error:
            if _unknown(error):
                raise Failure(f"{id} went with its head, the run did not: --resume sends it again") from None
            if time.monotonic() - heard > LOST_SECONDS:
                raise Failure(
                    f"the job server has not answered for {LOST_SECONDS:.0f} s ({_line(error)}). If only the way there"
                    " is gone, the job goes on; if the head is lost, so is the job, but not the run. Either way, once"
                    " there is a head to be reached: --resume"
                ) from None
            time.sleep(POLL_SECONDS)
            continue
        heard = time.monotonic()
        if details.status.is_terminal():
            _rest(client, id, seen, say)
            return details
        time.sleep(POLL_SECONDS)


async def _tail(client: JobSubmissionClient, id: str, seen: int, say: Callable[[str], None]) -> int:
    """The log from the first character not seen yet; how many there are now."""
    at = 0
    with contextlib.suppress(RuntimeError, OSError, aiohttp.ClientError):  # broken off: what was seen still counts
        async for text in client.tail_job_logs(id):
            say(text[max(0, seen - at) :])
            at += len(text)
    return max(seen, at)


def _rest(client: JobSubmissionClient, id: str, seen: int, say: Callable[[str], None]) -> None:
    """What came after the tail had been cut off."""
    with contextlib.suppress(RuntimeError, OSError):
        say(client.get_job_logs(id)[seen:])


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
