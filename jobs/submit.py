"""Submit a stage to a cluster and follow it: `python -m jobs.submit STAGE PRESET --run s3://... [the stage's flags]`.

    python -m jobs.submit pipeline car-racing --run s3://bucket/first
    python -m jobs.submit --resume --run s3://bucket/first

Ctrl-C stops following the job, which keeps running. --resume follows the last job of the run again, or submits it
again if it was stopped, failed or was lost with its head node.
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
from jobs.parser import Parser, filled
from jobs.runner import guard
from wm.errors import UserError
from wm.runs.provenance import circumstances
from wm.runs.run import open_run
from wm.runs.stages import STAGES
from wm.runs.storage import Folder, Storage, open_storage

# The jobs that can be submitted, and the config section whose flags also work without its name.
SECTIONS = {"pipeline": None, **{name: name for name in STAGES}, "iterate": "rounds"}
ENDS = {"SUCCEEDED": 0, "STOPPED": 130}


def submit(stage: str, words: list[str], address: str, watch: bool, code: bool) -> dict[str, Any]:
    if stage not in SECTIONS:
        raise UserError(f"no stage {stage}: use one of {', '.join(SECTIONS)}")
    preset, options, config = parse(stage, __doc__ or "", words, SECTIONS[stage])
    if options.local or options.address:
        raise UserError("a submitted job uses the cluster it is submitted to: remove --local and --address")
    config.check()
    words = [_absolute(word, before) for before, word in zip(["", *words], words, strict=False)]
    storage = open_storage(options.run)
    if isinstance(storage, Folder):
        logging.warning("%s is a folder, which all nodes must share; otherwise use s3://bucket/prefix", storage.uri)
    return _send(submission.connect(address), storage, stage, words, preset, watch, code)


def resume(uri: str, address: str, watch: bool) -> dict[str, Any]:
    storage = open_storage(uri)
    before = submission.last(storage)
    if before is None:
        raise UserError(f"no job was submitted for {uri} yet: `python -m jobs.submit STAGE PRESET --run {uri}`")
    client = submission.connect(address)
    status = submission.status(client, before.id)
    if status == "SUCCEEDED":
        print(f"{before.id} is complete: nothing to resume", file=sys.stderr)
        return _summary(before, status.value, "")
    if status is not None and not status.is_terminal():
        print(f"{before.id} is still running", file=sys.stderr)
        return _watch(client, before, storage, watch)
    print(f"{before.id} {_end_of(status)}: submitting it again", file=sys.stderr)
    run = open_run(uri)
    return _send(client, storage, before.stage, before.words, run.preset if run else "", watch, before.code)


def _end_of(status: Any) -> str:
    return (
        "was lost with its head node" if status is None else f"has {'failed' if status == 'FAILED' else 'been stopped'}"
    )


def _send(
    client: Any, storage: Storage, stage: str, words: list[str], preset: str, watch: bool, code: bool
) -> dict[str, Any]:
    metadata = {"preset": preset, "code": circumstances()["code"] if code else "the image's"}
    sent = submission.submit(client, storage, stage, words, metadata, code)
    print(f"submitted as {sent.id}", file=sys.stderr)
    return _watch(client, sent, storage, watch)


def _watch(client: Any, sent: Submission, storage: Storage, watch: bool) -> dict[str, Any]:
    if not watch:
        print(_follow_hint(sent, storage), file=sys.stderr)
        return _summary(sent, "SENT", "")
    text: list[str] = [""]

    def echo(part: str) -> None:
        print(part, end="", file=sys.stderr, flush=True)
        text[0] = (text[0] + part)[-100_000:]  # the end is enough for the summary

    try:
        details = submission.follow(client, sent.id, echo)
    except KeyboardInterrupt:
        raise StoppedFollowing(f"\n{sent.id} keeps running. {_follow_hint(sent, storage)}") from None
    return _summary(sent, details.status.value, text[0], details.driver_exit_code)


class StoppedFollowing(Exception):
    """The user stopped following; the job keeps running."""


def _follow_hint(sent: Submission, storage: Storage) -> str:
    return (
        f"Follow it with: python -m jobs.submit --resume --run {storage.uri}\n"
        f"or: ray job logs --follow {sent.id}; stop it with: ray job stop {sent.id}"
    )


def _summary(sent: Submission, status: str, text: str, code: int | None = None) -> dict[str, Any]:
    """Summary of the submission, including the job's own summary from the end of its log."""
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


def _absolute(word: str, before: str) -> str:
    """Make the path of a folder absolute, since the job starts in another directory."""
    flag, equals, value = word.partition("=") if word.startswith(("--run=", "--base=")) else ("", "", word)
    if not (flag or before in ("--run", "--base")):
        return word
    storage = open_storage(value)
    return f"{flag}{equals}{storage.uri}" if isinstance(storage, Folder) else word


def main(argv: list[str]) -> int:
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    stage = argv[0] if argv and not argv[0].startswith("-") else ""
    parser = Parser(
        prog="python -m jobs.submit",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="python -m jobs.submit STAGE PRESET --run URI [flags of jobs.STAGE], or --resume --run URI",
        add_help=not stage,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--address", default="", help="the job server; by default RAY_API_SERVER_ADDRESS, or localhost:8265"
    )
    parser.add_argument("--no-wait", action="store_true", help="submit without following")
    if stage:
        parser.add_argument("--no-code", action="store_true", help="upload no code: the nodes have it in their image")
    else:
        parser.add_argument("--resume", action="store_true", help="follow the last job of the run, or submit it again")
        parser.add_argument("--run", required=True, type=filled, help="the run: s3://bucket/prefix")
    options, words = parser.parse_known_args(argv[1:] if stage else argv)
    if not stage and (words or not options.resume):
        parser.error(f"no stage: name one of {', '.join(SECTIONS)}, or use --resume")
    summaries: list[dict[str, Any]] = []

    def job() -> dict[str, Any]:
        if stage:
            summaries.append(submit(stage, words, options.address, not options.no_wait, not options.no_code))
        else:
            summaries.append(resume(options.run, options.address, not options.no_wait))
        return summaries[0]

    try:
        code = guard(job)
    except StoppedFollowing as stopped:
        print(stopped, file=sys.stderr)
        return 130
    if code or not summaries or summaries[0]["status"] == "SENT":
        return code
    ended = summaries[0]["code"]
    return ENDS.get(summaries[0]["status"], ended if ended in (2, 130) else 1)


if __name__ == "__main__":
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    sys.exit(main(sys.argv[1:]))
