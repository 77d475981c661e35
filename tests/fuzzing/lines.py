"""Odd command lines: flags of the config with strange values, missing and repeated ones, places that are none."""

import random
from collections.abc import Mapping
from pathlib import Path

from wm.config.fields import leaves
from wm.config.presets import PRESETS

LONG = "x" * 300
INTEGERS = ["0", "1", "2", "3", "4", "7", "8", "41", "1000", "65536", "100000", "100000000", "1000000000"]
INTEGERS += ["2147483647", "2147483648", "1000000000000", "-1", "-0", "+1"]
NUMBERS = ["0", "1", "0.5", "-0.1", "1e-320", "1e-9", "1e9", "1e12", "1e308", "-1e308", "inf", "-inf", "nan", "1e400"]
TEXTS = ["", " ", "abc", "None", "True", "[]", "{}", "'", '"', "ä", "٣", "\ud800", LONG, "x" * 5_000, "--", "-", "="]
TEXTS += ["%s", "$(true)", "a b", "\n", "9" * 30, "0x10", "1_000", "1.5", "1e12", "gym:", "gym:no-v0", "gym:evil:x"]
GOOD = ("RUN", "RUN", "RUN", "RUN", "FINISHED", "FINISHED", "RUN/below", "ä", "PLACE")
# No place here can be written, also not by root: a run that is accepted must lie below PLACE.
BAD = [
    "FILE",
    "FILE/below",
    "",
    " ",
    "~nouser/x",
    "/dev/null",
    "/proc/1/x",
    "s3://",
    "s3:///x",
    "http://host/run",
    LONG,
]
BAD += [
    LONG,
    "file:///proc/nonexistent",
    "ftp:",
    "RUN/" + "y" * 5_000,
    "\ud800",
    "[",
    "http://[",
    "RUN\n",
    "/proc/nonexistent/x",
]
AGENTS = ["AGENT"] * 5 + [
    "doom",
    "car-racing-decoder",
    "nobody",
    "",
    "../doom",
    "FILE",
    "FILE.safetensors",
    "/dev/null",
]
TO = ["PLACE/film.mp4", "PLACE", "PLACE/film.txt", "/proc/nonexistent/film.mp4", "", "FILE", "/dev/null", LONG + ".mp4"]
STAGES = ("collect", "vision", "latents", "memory", "evolve", "score", "pipeline", "iterate", "sweep")
OTHERS = ("status", "watch", "play", "export", "unpack", "plan", "report", "compare")
FIELDS = {name: value for name, (_, value) in leaves(PRESETS["tiny"]).items()}


def command_line(rng: random.Random, places: Mapping[str, Path]) -> tuple[str, list[str]]:
    """(job, words), with the names of places replaced by their paths."""
    job = rng.choice([*STAGES * 3, *OTHERS])
    words = _of_stage(job, rng) if job in STAGES else _of_other(job, rng)
    if rng.random() < 0.12 and words:
        _disturb(words, rng)
    if job in STAGES and "--local" not in words:
        words.append("--local")

    def placed(word: str) -> str:
        for name, path in places.items():
            word = word.replace(name, str(path))
        return word

    return job, [placed(word) for word in words]


def _place(rng: random.Random) -> str:
    return rng.choice(GOOD) if rng.random() < 0.75 else rng.choice(BAD)


def _of_stage(job: str, rng: random.Random) -> list[str]:
    words = []
    if job == "score" and rng.random() < 0.3:
        words += _flag("agent", rng.choice(AGENTS), rng)
    elif rng.random() < 0.8:
        words += [rng.choice(["tiny"] * 8 + ["doom-tiny", "huge", ""])]
    if rng.random() < 0.97:
        words += _flag("run", _place(rng), rng)
    if rng.random() < 0.1:
        words += _flag("base", _place(rng), rng)
    for _ in range(rng.choice([0, 1, 1, 1, 2])):
        words += _field(rng)
    if job == "sweep":
        words += rng.choice([[], ["--tau", rng.choice(NUMBERS)], ["--seeds", rng.choice(INTEGERS)]])
    if job == "iterate" and rng.random() < 0.5:
        name = rng.choice(list(FIELDS))
        words += [f"--rounds.{name}", _value(name, rng)]
    return words


def _value(name: str, rng: random.Random) -> str:
    """A value for this field: of its type, but often too small, too large or no number at all."""
    kind = type(FIELDS[name])
    if rng.random() < 0.15:
        return rng.choice([*TEXTS, *INTEGERS, *NUMBERS])
    if name.endswith((".init", ".agent")):
        return _place(rng)
    return rng.choice(INTEGERS if kind is int else NUMBERS if kind is float else TEXTS)


def _field(rng: random.Random) -> list[str]:
    name = rng.choice(list(FIELDS))
    if type(FIELDS[name]) is bool and rng.random() < 0.9:
        section, _, field = name.rpartition(".")
        return [f"--{section}.{rng.choice(['', 'no-'])}{field}"]
    if rng.random() < 0.03:
        name = name.replace("e", "", 1)
        return _flag(name, "1", rng)
    return _flag(name, _value(name, rng), rng)


def _flag(name: str, value: str, rng: random.Random) -> list[str]:
    return [f"--{name}={value}"] if rng.random() < 0.2 else [f"--{name}", value]


def _disturb(words: list[str], rng: random.Random) -> None:
    at = rng.randrange(len(words))
    kind = rng.choice(["drop", "double", "swap", "odd"])
    if kind == "drop":
        del words[at]
    elif kind == "double":
        words.insert(at, words[at])
    elif kind == "swap":
        rng.shuffle(words)
    else:
        words.insert(at, rng.choice(["--", "-x", "--colour", "---", "tiny", "--help-al", "@FILE", "--no-score"]))


def _source(rng: random.Random) -> list[str]:
    """A run or an agent; never a run that is worth showing, which takes long."""
    if rng.random() < 0.3:
        return _flag("run", rng.choice(["RUN", *BAD]), rng)
    words = _flag("agent", rng.choice(AGENTS), rng)
    return words + _flag("run", rng.choice(BAD), rng) if rng.random() < 0.1 else words


def _of_other(job: str, rng: random.Random) -> list[str]:
    anywhere, nowhere = _flag("run", _place(rng), rng), _flag("run", rng.choice(["RUN", *BAD]), rng)
    if job == "status":
        return [*anywhere, *rng.choice([[], ["--check"]])]
    if job == "watch":
        odd = [f"--{rng.choice(['seed', 'every', 'tau'])}", rng.choice(INTEGERS + NUMBERS)]
        return [
            *_source(rng),
            "--in",
            rng.choice(["real", "dream", "moon"]),
            "--to",
            rng.choice(TO),
            "--steps",
            "2",
            *odd,
        ]
    if job == "play":
        return [*_source(rng), "--to", rng.choice([*TO, "PLACE/a.html", "FILE/a.html"])]
    if job == "export":
        return [*anywhere, "--to", rng.choice([*TO, "PLACE/a.safetensors", "FILE/a.safetensors"])]
    if job == "unpack":
        return [*anywhere, *_flag("agent", rng.choice(AGENTS), rng)]
    if job == "plan":
        odd = [f"--{rng.choice(['cpus', 'gpus', 'rounds', 'price-cpu', 'bench'])}", rng.choice(INTEGERS + TEXTS)]
        return [rng.choice(["tiny", "demo", "huge", ""]), *odd, *_field(rng)]
    return nowhere if job == "report" else ["--runs", _place(rng), rng.choice(BAD)]
