"""Parses a command line into a config: `[PRESET] --run URI [--section.field value ...]`."""

import ast
import contextlib
import dataclasses
import difflib
import inspect
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, TypeVar, get_type_hints

import tyro

from wm.config.fields import parse_value
from wm.config.presets import PRESETS
from wm.config.schema import Config
from wm.errors import UserError
from wm.runs.run import open_existing, open_run

# Short flags whose names can't be field names: --in dream, --rounds 3.
SHORT = {("evolve", "in"): "where", ("rounds", "rounds"): "count"}
# The fields shown by --help for jobs without a section of their own.
COMMON_FIELDS = (
    *("game", "seed", "collect.episodes", "vision.steps", "memory.steps", "evolve.generations"),
    *("evolve.population", "evolve.episodes", "score.episodes", "workers.count"),
)
ALL_FLAGS = "Every field of the config is a flag: --help-all lists them."

T = TypeVar("T")
Switch = Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help_behavior_hint="")]


@dataclass(frozen=True)
class RunOptions:
    """Options of every job that works on a run."""

    run: Annotated[str, tyro.conf.arg(metavar="URI")]
    """The run: a folder or s3://bucket/prefix."""
    base: Annotated[str | None, tyro.conf.arg(metavar="URI", help_behavior_hint="")] = None
    """Another run, whose stages are reused where the config is the same; can replace the preset."""
    address: Annotated[str | None, tyro.conf.arg(metavar="ADDRESS", help_behavior_hint="")] = None
    """A Ray cluster to use; by default RAY_ADDRESS, or a Ray of this job's own."""
    local: Switch = False
    """Use this process only, without Ray."""
    take_over: Switch = False
    """Take the run from the job that holds it instead of waiting."""


@dataclass(frozen=True)
class Arguments:
    options: Annotated[RunOptions, tyro.conf.arg(name="")]
    config: Annotated[Config, tyro.conf.arg(name="")]


def parse(
    job: str,
    doc: str,
    argv: Sequence[str],
    section: str | None = None,
    fallback: Config | None = None,
    more: Mapping[str, str] | None = None,
) -> tuple[str, RunOptions, Config]:
    """Return the preset's name, the options and the config.

    The flags default to the config of the existing run, the preset, the base run or `fallback`, in that order. The
    flags of `section` also work without its name: `--episodes` for `--collect.episodes`. `more` describes flags that
    the job takes from the command line itself, as "agent FILE" or "stop-early"; --help lists them, too.
    """
    words = list(argv)
    preset = words.pop(0) if words and not words[0].startswith("-") else None
    if preset is not None:
        _preset(preset)
    words = [_with_section(word, section) for word in words]
    preset, config = _default(job, preset, value_of(words, "--run"), value_of(words, "--base"), fallback)
    words, config = _overridden(words, config)
    default = Arguments(options=RunOptions(run=tyro.MISSING), config=config)
    command = f"{job} [PRESET]"
    if not {"-h", "--help"}.isdisjoint(words):
        _short_help(command, doc, section, config, more or {})
    words = ["--help" if word == "--help-all" else word for word in words]
    try:
        arguments = _parsed(command, doc, words, default)
    except UserError as error:
        raise UserError(_with_hint(str(error), section, more or {})) from None
    return preset, arguments.options, arguments.config


def configured(job: str, doc: str, preset: str, words: Sequence[str]) -> Config:
    """The config of a preset and flags, for jobs without a run."""
    left, config = _overridden(words, _preset(preset))
    return _parsed(f"{job} {preset}", doc, left, config).check()


def _parsed(command: str, doc: str, words: Sequence[str], default: T) -> T:
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(
                type(default), prog=f"python -m jobs.{command}", description=doc, args=words, default=default
            )
    except SystemExit as exit:
        if not exit.code:  # --help
            raise
        raise UserError(_in_one_line(errors.getvalue())) from None


@contextlib.contextmanager
def typed_flags(argv: Sequence[str], section: str | None) -> Iterator[None]:
    """Name flags in a UserError as they were typed: --in for --evolve.where."""
    try:
        yield
    except UserError as error:
        message = str(error)
        for word in argv:
            name, full = (part.partition("=")[0] for part in (word, _with_section(word, section)))
            message = re.sub(rf"{re.escape(full)}(?![\w.-])", name, message)
        raise UserError(message) from None


def _short_help(command: str, doc: str, section: str | None, config: Config, more: Mapping[str, str]) -> None:
    """Print the job's own flags and then those of every job, and exit."""
    if section:
        own = getattr(config, section)
        short = {(holder, field): name for (holder, name), field in SHORT.items()}
        names = [item.name for item in fields(own) if item.name != "overrides"]
        shown = [(short.get((section, name), name), section, name) for name in names]
    else:
        shown = [(path.replace("-", "_"), *path.rpartition(".")[::2]) for path in COMMON_FIELDS]
    flags = [_own_flag(*name.partition(" ")[::2], text) for name, text in more.items()]
    for name, holder_name, field in shown:
        holder = getattr(config, holder_name) if holder_name else config
        kind = get_type_hints(type(holder))[field]
        described = tyro.conf.arg(name=name.replace("_", "-"), help=_help_of(type(holder), field))
        flags.append((name.replace(".", "__") + "_", Annotated[kind, described], getattr(holder, field)))
    parts = [("flags", dataclasses.make_dataclass("Flags", flags)), ("options", RunOptions)]
    both = dataclasses.make_dataclass("Both", [(name, Annotated[kind, tyro.conf.arg(name="")]) for name, kind in parts])
    default = both(parts[0][1](), RunOptions(run=tyro.MISSING))
    tyro.cli(
        both,
        prog=f"python -m jobs.{command}",
        description=f"{doc}\n{ALL_FLAGS}\nPRESET starts a run: {', '.join(PRESETS)}.",
        args=["--help"],
        default=default,
    )


def _own_flag(name: str, value: str, text: str) -> tuple[str, Any, Any]:
    """A field of a data class that --help shows as a flag, with a value or as a switch."""
    field = name.replace("-", "_")
    if not value:
        return field, Annotated[Switch, tyro.conf.arg(name=name, help=text)], False
    about = tyro.conf.arg(name=name, help=text, metavar=value, help_behavior_hint="")
    return field, Annotated[str | None, about], None


def _help_of(section: type, name: str) -> str:
    """The docstring below a field."""
    for holder in section.__mro__:
        if not dataclasses.is_dataclass(holder):
            continue
        (body,) = ast.parse(inspect.getsource(holder)).body
        assert isinstance(body, ast.ClassDef)
        for field, text in zip(body.body, body.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and getattr(field.target, "id", "") == name:
                assert isinstance(text, ast.Expr)
                return " ".join(str(ast.literal_eval(text.value)).split())
    raise AssertionError((section, name))


def _in_one_line(box: str) -> str:
    """The message in tyro's error box, with its first suggestion."""
    # Without Unicode, the rows of the box begin with two spaces.
    rows = " ".join(line.strip("│ ") for line in box.splitlines() if line.startswith(("│", "  "))) or box
    message, *notes = re.split("[─-]{9,}", " ".join(rows.split()))
    message = re.sub(r" from python -m jobs\.[^:]*:", ":", message)  # the box breaks the names of presets
    number = re.fullmatch(
        r"Error parsing (\S+): (?:invalid literal for (int)|could not convert string to float).*: '(.*)'",
        message.strip(),
    )
    if number:
        message = f"{number[1]} must be {'an integer' if number[2] else 'a number'}, got {number[3]}"
    flags = [found[0] for note in notes if "Perhaps you meant" in note and (found := re.findall(r"--[\w.-]+", note))]
    hint = f" (perhaps you meant {flags[0]})" if flags else ""
    return f"{message.strip(' .')}{hint}; --help-all lists all flags"


def _with_hint(message: str, section: str | None, more: Mapping[str, str]) -> str:
    """Suggest the job's own flag that resembles an unknown one; the library only knows the names with a section."""
    unknown = re.match(r"Unrecognized options: (--[\w.-]+)", message)
    if not unknown or "perhaps you meant" in message:
        return message
    own = [field.name for field in fields(getattr(PRESETS["tiny"], section))] if section else []
    names = [
        f"--{name.replace('_', '-')}"
        for name in (*own, *(flag.partition(" ")[0] for flag in more), *(field.name for field in fields(RunOptions)))
    ]
    close = difflib.get_close_matches(unknown[1], names, 1)
    return message.replace("; --help-all", f" (perhaps you meant {close[0]}); --help-all") if close else message


def _preset(preset: str) -> Config:
    if preset not in PRESETS:
        raise UserError(f"no preset {preset}: use one of {', '.join(PRESETS)}")
    return PRESETS[preset]


def _default(
    job: str, preset: str | None, uri: str | None, base: str | None, fallback: Config | None
) -> tuple[str, Config]:
    run = open_run(uri) if uri else None
    if run is not None:
        if preset not in (None, run.preset):
            raise UserError(
                f"{uri} was started with the preset {run.preset}, not {preset}: remove the preset, or start another run"
            )
        return run.preset, run.config
    if preset is None:
        if base is not None:
            other = open_existing(base)
            return other.preset, other.config
        if fallback is not None:
            return "", fallback
        if uri is None:
            return "", PRESETS["car-racing-small"]  # for --help; otherwise the parser asks for --run
        raise UserError(
            f"no run in {uri}: start one with `python -m jobs.{job} PRESET --run {uri}`; presets: {', '.join(PRESETS)}"
        )
    return preset, PRESETS[preset]


def _overridden(words: Sequence[str], config: Config) -> tuple[list[str], Config]:
    """Move flags such as --rounds.evolve.generations 30 from the words to the overrides of the config."""
    left: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        found = re.fullmatch(r"--rounds\.([a-z]+)\.(no-)?([a-z0-9-]+)(?:=(.*))?", word)
        if not found:
            left.append(word)
            continue
        section, negated, name, value = found.groups()
        path = f"{section}.{name}"
        if value is None:
            is_switch = negated or not rest or rest[0].startswith("--")
            value = str(not negated) if is_switch else rest.pop(0)
        parsed = parse_value(config, path, value)
        config = replace(config, rounds=replace(config.rounds, overrides=config.rounds.overrides | {path: parsed}))
    return left, config


def value_of(words: Sequence[str], flag: str) -> str | None:
    """The value of a flag on the command line."""
    for index, word in enumerate(words):
        if word == flag and index + 1 < len(words):
            return words[index + 1]
        if word.startswith(flag + "="):
            return word.partition("=")[2]
    return None


def without(words: Sequence[str], flag: str) -> list[str]:
    """The command line without a flag and its value."""
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
