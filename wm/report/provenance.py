"""How a run was made: where the time went, what it was made with, and the commands that make it again."""

import shlex
from typing import Any

from wm.config.fields import of_kind
from wm.config.presets import PRESETS
from wm.formatting import format_duration
from wm.report.page import Html, commands, facts, folded, joined, missing, table, tag
from wm.report.run_view import RunView
from wm.runs.cost import cost_of
from wm.runs.provenance import circumstances


def time(found: RunView) -> Html:
    """A row a stage, with its share of all that was spent."""
    made = [cost_of(stage.manifest) for stage in found.stages.values() if stage.manifest is not None]
    if not made:
        found.need("collect")
    total, rows = sum(one.seconds for one in made) or 1.0, []
    gpus = sum(one.gpu_hours for one in made)
    for one in made:
        meter = tag("span", class_="meter", style=f"width:{100 * one.seconds / total:.1f}%")
        rows.append(
            (
                joined([one.stage, meter]),
                format_duration(one.seconds),
                joined([f"{one.steps:,} ", tag("small", one.unit)]),
                _hours(one.cpu_hours),
                *([_hours(one.gpu_hours)] if gpus else []),
            )
        )
    cpu = sum(one.cpu_hours for one in made)
    rows.append(("all", format_duration(total), "", _hours(cpu), *([_hours(gpus)] if gpus else [])))
    heads = ("stage", "time", "steps", "CPU h", *(["GPU h"] if gpus else []))
    shown = table(heads, rows, range(1, len(heads)), strong=len(rows) - 1)
    note = (
        "The time is that of the job which completed the stage, the hours are those of the CPUs and GPUs that were held"
        " for it."
    )
    absent = [stage for stage in found.stages.values() if not stage.complete]
    lines = [
        missing(f"{one.name} is not complete: `python -m jobs.{one.name} --run {_uri(found)}` goes on")
        for one in absent
    ]
    return joined([shown, tag("p", tag("small", note)), lines])


def again(found: RunView) -> Html:
    """Commands, versions, the config."""
    config, run = found.config, found.run
    words = ["python", "-m", "jobs.pipeline", run.preset, "--run", run.uri]
    if run.base is not None:
        words += ["--base", run.base.uri]
    lines = [shlex.join(words + changed(run.preset, config)), f"python -m jobs.report --run {_uri(found)}"]
    made = [stage.manifest.made for stage in found.stages.values() if stage.manifest is not None]
    with_what = made[-1] if made else circumstances()
    versions = {"this project": with_what.get("code", "?"), "python": with_what.get("python", "?")}
    versions |= with_what.get("versions", {})
    pairs = [(name, value) for name, value in versions.items()]
    pairs.append(("processor", with_what.get("processor", "?")))
    fields = [(tag("code", f"--{name}"), str(value)) for name, value in of_kind(config, "bits", "extent").items()]
    digests = [
        (stage.name, f"{stage.manifest.extent:,}", tag("code", stage.manifest.digest[:16]))
        for stage in found.stages.values()
        if stage.manifest is not None
    ]
    return joined(
        [
            tag(
                "p",
                "The same commands with the same versions on the same kind of processor give the same numbers,"
                " bit for bit, however many workers there are.",
                class_="lead",
            ),
            commands(lines),
            facts(pairs),
            folded("Every field of the config", table(("field", "value"), fields)),
            folded("Digests of what was made", table(("stage", "extent", "digest"), digests, (1,)))
            if digests
            else None,
        ]
    )


def changed(preset: str, config: Any) -> list[str]:
    """The flags by which a config differs from its preset."""
    if preset not in PRESETS:
        return []
    before, words = of_kind(PRESETS[preset], "bits", "extent"), []
    for name, value in of_kind(config, "bits", "extent").items():
        if value == before[name]:
            continue
        if isinstance(value, bool):
            section, _, field = name.rpartition(".")
            words.append(f"--{section}{'.' if section else ''}{'' if value else 'no-'}{field}")
        else:
            words += [f"--{name}", str(value)]
    return words


def _hours(hours: float) -> str:
    return f"{hours:.2g}"


def _uri(found: RunView) -> str:
    return shlex.quote(found.run.uri)
