"""From what a person types to a config: `[PRESET] --run URI [--section.field value ...]`."""

import contextlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Annotated, TypeVar

import tyro

from wm.config.presets import PRESETS
from wm.config.schema import Config
from wm.errors import UserError
from wm.runs.run import open_existing, open_run

# What one would say, but the field can't be called: --in dream, --rounds 3.
SHORT = {("evolve", "in"): "where", ("rounds", "rounds"): "count"}

T = TypeVar("T")


@dataclass(frozen=True)
class RunOptions:
    """What every job that works on a run can be told."""

    run: str
    """The run: a folder or s3://bucket/prefix."""
    base: str | None = None
    """Another run, whose complete stages are used where their config is the same; it can stand for the preset."""
    address: str | None = None
    """A Ray cluster to work on; without it, RAY_ADDRESS, else a Ray of this job's own."""
    local: bool = False
    """Work in this process alone, without Ray."""
    take_over: bool = False
    """Don't wait for the job that holds the run: take it from it."""


@dataclass(frozen=True)
class Arguments:
    where: Annotated[RunOptions, tyro.conf.arg(name="")]
    config: Annotated[Config, tyro.conf.arg(name="")]


def parse(
    job: str, doc: str, argv: Sequence[str], section: str | None = None, fallback: Config | None = None
) -> tuple[str, RunOptions, Config]:
    """The preset's name, where to work, and the config.

    The defaults of the flags are the run's own config where it exists, else the preset's, its base's, `fallback`. In a
    stage's own job its section's name may be left out: `--episodes` for `--collect.episodes`.
    """
    words = list(argv)
    preset = words.pop(0) if words and not words[0].startswith("-") else None
    if preset is not None:
        _known(preset)
    words = [_with_section(word, section) for word in words]
    preset, config = _default(job, preset, value_of(words, "--run"), value_of(words, "--base"), fallback)
    default = Arguments(where=RunOptions(run=tyro.MISSING), config=config)
    arguments = _parsed(f"{job} [{'|'.join(PRESETS)}]", doc, words, default)
    return preset, arguments.where, arguments.config


def configured(job: str, doc: str, preset: str, words: Sequence[str]) -> Config:
    """A preset changed by flags, for who needs no run."""
    return _parsed(f"{job} {preset}", doc, words, _known(preset)).check()


def _parsed(command: str, doc: str, words: Sequence[str], default: T) -> T:
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(
                type(default), prog=f"python -m jobs.{command}", description=doc, args=words, default=default
            )
    except SystemExit as end:
        if not end.code:  # --help
            raise
        raise UserError(_in_one_line(complaint.getvalue())) from None


def _in_one_line(box: str) -> str:
    """What is wrong and what was perhaps meant, out of tyro's box of rows and rules."""
    rows = " ".join(line.strip("│ ") for line in box.splitlines() if line.startswith("│"))
    wrong, *others = re.split("─{9,}", " ".join(rows.split()))
    wrong = re.sub(r" from python -m jobs\.[^:]*:", ":", wrong)  # the box breaks the presets' names apart
    meant = [found[0] for part in others if "Perhaps you meant" in part and (found := re.findall(r"--[\w.-]+", part))]
    return f"{wrong.strip(' .')}{f' (perhaps you meant {meant[0]})' if meant else ''}; --help lists all flags"


def _known(preset: str) -> Config:
    if preset not in PRESETS:
        raise UserError(f"no preset {preset!r}: say one of {', '.join(PRESETS)}")
    return PRESETS[preset]


def _default(
    job: str, preset: str | None, uri: str | None, base: str | None, fallback: Config | None
) -> tuple[str, Config]:
    run = open_run(uri) if uri else None
    if run is not None:
        if preset not in (None, run.preset):
            raise UserError(
                f"{uri} was started with the preset {run.preset}, not {preset}: leave it out, or start another run"
            )
        return run.preset, run.config
    if preset is None:
        if base is not None:
            other = open_existing(base)
            return other.preset, other.config
        if fallback is not None:
            return "", fallback
        if uri is None:
            return "", PRESETS["car-racing-small"]  # for --help; the parser itself asks for --run
        raise UserError(
            f"no run in {uri}: start one with `python -m jobs.{job} PRESET --run {uri}`; presets: {', '.join(PRESETS)}"
        )
    return preset, PRESETS[preset]


def value_of(words: Sequence[str], flag: str) -> str | None:
    """What follows --flag on the command line."""
    for at, word in enumerate(words):
        if word == flag and at + 1 < len(words):
            return words[at + 1]
        if word.startswith(flag + "="):
            return word.partition("=")[2]
    return None


def without(words: Sequence[str], flag: str) -> list[str]:
    """The command line without --flag and what follows it."""
    left: list[str] = []
    for word in words:
        if left and left[-1] == flag:
            left.pop()
        elif not word.startswith(flag + "="):
            left.append(word)
    return left


def _with_section(word: str, section: str | None) -> str:
    if section is None or not word.startswith("--"):
        return word
    name, equals, value = word[2:].partition("=")
    name = SHORT.get((section, name), name)
    own = {item.name for item in fields(getattr(PRESETS["tiny"], section))}
    return f"--{section}.{name}{equals}{value}" if name.replace("-", "_") in own else word
