"""Send a stage to a cluster and watch it: `python -m jobs.submit STAGE PRESET --run s3://... [the stage's flags]`.

    python -m jobs.submit pipeline car-racing --run s3://bucket/first
    python -m jobs.submit --resume --run s3://bucket/first      what was last sent for this run, again

Ctrl-C ends the watching, not the job; --resume watches it again, or sends it again if its head was lost.
"""

import argparse
import json
import logging
import os
import sys
from typing import Any

from cluster import submission
from cluster.submission import Submission
from jobs.command_line import parse
from jobs.runner import guard
from wm.errors import UserError
from wm.runs import storage as places
from wm.runs.provenance import circumstances
from wm.runs.run import open_run
from wm.runs.storage import Folder, Storage

# Each stage's job, and the section whose name its flags may leave out.
SECTIONS = {
    "pipeline": None,
    "collect": "collect",
    "train_vision": "vision",
    "encode": "latents",
    "train_memory": "memory",
    "evolve": "evolve",
    "score": "score",
    "iterate": "rounds",
}
ENDS = {"SUCCEEDED": 0, "STOPPED": 130}


def submit(stage: str, words: list[str], address: str, watch: bool, code: bool) -> dict[str, Any]:
    if stage not in SECTIONS:
        raise UserError(f"no stage {stage!r}: say one of {', '.join(SECTIONS)}")
    preset, where, config = parse(stage, __doc__ or "", words, SECTIONS[stage])
    if where.local or where.address:
        raise UserError("a job that is sent works on the cluster it is sent to: leave --local out")
    config.check()
    words = [_whole(word, before) for before, word in zip(["", *words], words, strict=False)]
    storage = places.at(where.run)
    if isinstance(storage, Folder):
        logging.warning(
            "%s is a folder: every node has to have the same one there; else say s3://bucket/prefix", storage.uri
        )
    return _send(submission.connect(address), storage, stage, words, preset, watch, code)


def resume(uri: str, address: str, watch: bool) -> dict[str, Any]:
    storage = places.at(uri)
    before = submission.last(storage)
    if before is None:
        raise UserError(f"nothing was sent for {uri} yet: `python -m jobs.submit STAGE PRESET --run {uri}`")
    client = submission.connect(address)
    status = submission.status(client, before.id)
    if status == "SUCCEEDED":
        print(f"{before.id} is done: nothing to resume", file=sys.stderr)
        return _summary(before, status.value, "")
    if status is not None and not status.is_terminal():
        print(f"{before.id} is still at it", file=sys.stderr)
        return _watch(client, before, storage, watch)
    print(f"{before.id} {_fate(status)}: sent again", file=sys.stderr)
    run = open_run(uri)
    return _send(client, storage, before.stage, before.words, run.preset if run else "", watch, before.code)


def _fate(status: Any) -> str:
    return "went with its head" if status is None else f"has {'failed' if status == 'FAILED' else 'been stopped'}"


def _send(
    client: Any, storage: Storage, stage: str, words: list[str], preset: str, watch: bool, code: bool
) -> dict[str, Any]:
    metadata = {"preset": preset, "code": circumstances()["code"] if code else "the image's"}
    sent = submission.submit(client, storage, stage, words, metadata, code)
    print(f"sent as {sent.id}", file=sys.stderr)
    return _watch(client, sent, storage, watch)


def _watch(client: Any, sent: Submission, storage: Storage, watch: bool) -> dict[str, Any]:
    if not watch:
        print(_back(sent, storage), file=sys.stderr)
        return _summary(sent, "SENT", "")
    text: list[str] = [""]

    def say(part: str) -> None:
        print(part, end="", file=sys.stderr, flush=True)
        text[0] = (text[0] + part)[-100_000:]  # the end is enough: there stands the summary

    try:
        details = submission.follow(client, sent.id, say)
    except KeyboardInterrupt:
        raise Left(f"\n{sent.id} goes on without us. {_back(sent, storage)}") from None
    return _summary(sent, details.status.value, text[0], details.driver_exit_code)


class Left(Exception):
    """Somebody no longer watches; not an interrupted job."""


def _back(sent: Submission, storage: Storage) -> str:
    return (
        f"Come back with: python -m jobs.submit --resume --run {storage.uri}\n"
        f"or: ray job logs --follow {sent.id}; end it with: ray job stop {sent.id}"
    )


def _summary(sent: Submission, status: str, text: str, code: int | None = None) -> dict[str, Any]:
    """Of the sending, and of the job itself, which is the last line of its log that is one."""
    found: dict[str, Any] = {
        "job": "submit",
        "submission": sent.id,
        "stage": sent.stage,
        "status": status,
        "code": code,
    }
    for line in reversed(text.splitlines()):
        if line.startswith('{"job": '):
            return found | {"summary": json.loads(line)}
    return found


def _whole(word: str, before: str) -> str:
    """A folder by its whole name: the job starts somewhere else."""
    flag, equals, value = word.partition("=") if word.startswith(("--run=", "--base=")) else ("", "", word)
    if not (flag or before in ("--run", "--base")):
        return word
    storage = places.at(value)
    return f"{flag}{equals}{storage.uri}" if isinstance(storage, Folder) else word


def main(argv: list[str]) -> int:
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    stage = argv[0] if argv and not argv[0].startswith("-") else ""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.submit",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="python -m jobs.submit STAGE PRESET --run URI [flags of jobs.STAGE], or --resume --run URI",
        add_help=not stage,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--address", default="", help="the job server; else RAY_API_SERVER_ADDRESS, else localhost:8265"
    )
    parser.add_argument("--no-wait", action="store_true", help="send it and don't watch")
    if stage:
        parser.add_argument("--no-code", action="store_true", help="send no code: the nodes have it in their image")
    else:
        parser.add_argument("--resume", action="store_true", help="watch or send again what was last sent for the run")
        parser.add_argument("--run", required=True, help="the run: s3://bucket/prefix")
    said, words = parser.parse_known_args(argv[1:] if stage else argv)
    if not stage and (words or not said.resume):
        parser.error(f"which stage? {', '.join(SECTIONS)}; or --resume")
    summaries: list[dict[str, Any]] = []

    def job() -> dict[str, Any]:
        if stage:
            summaries.append(submit(stage, words, said.address, not said.no_wait, not said.no_code))
        else:
            summaries.append(resume(said.run, said.address, not said.no_wait))
        return summaries[0]

    try:
        code = guard(job)
    except Left as left:
        print(left, file=sys.stderr)
        return 130
    if code or not summaries or summaries[0]["status"] == "SENT":
        return code
    ended = summaries[0]["code"]
    return ENDS.get(summaries[0]["status"], ended if ended in (2, 130) else 1)


if __name__ == "__main__":
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    sys.exit(main(sys.argv[1:]))
