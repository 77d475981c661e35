"""The cost of a run, and the commands, versions and config that reproduce it."""

import shlex
from typing import Any

from wm.config.fields import of_kind
from wm.config.presets import PRESETS
from wm.formatting import format_duration
from wm.report.page import Html, commands, facts, folded, joined, missing, table, tag
from wm.report.run_view import RunView
from wm.runs.cost import cost_of
from wm.runs.provenance import circumstances


def cost(view: RunView) -> Html:
    """A row for each stage, with its share of the total time."""
    made = [cost_of(stage.manifest) for stage in view.stages.values() if stage.manifest is not None]
    if not made:
        view.need("collect")
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
    rows.append(("total", format_duration(total), "", _hours(cpu), *([_hours(gpus)] if gpus else [])))
    heads = ("stage", "time", "steps", "CPU hours", *(["GPU hours"] if gpus else []))
    costs = table(heads, rows, range(1, len(heads)), strong=len(rows) - 1)
    note = (
        "Time: wall-clock time of the job that completed the stage. Hours: time multiplied by the reserved CPUs and"
        " GPUs."
    )
    lines = [
        missing(f"stage {stage.name} is not complete: continue with `python -m jobs.{stage.name} --run {_uri(view)}`")
        for stage in view.stages.values()
        if not stage.complete
    ]
    return joined([costs, tag("p", tag("small", note)), lines])


def reproduction(view: RunView) -> Html:
    """Commands, versions and the config."""
    config, run = view.config, view.run
    words = ["python", "-m", "jobs.pipeline", run.preset, "--run", run.uri]
    if run.base is not None:
        words += ["--base", run.base.uri]
    lines = [shlex.join(words + changed_flags(run.preset, config)), f"python -m jobs.report --run {_uri(view)}"]
    made = [stage.manifest.made for stage in view.stages.values() if stage.manifest is not None]
    with_what = made[-1] if made else circumstances()
    versions = {"this project": with_what.get("code", "?"), "python": with_what.get("python", "?")}
    versions |= with_what.get("versions", {})
    pairs = [(name, value) for name, value in versions.items()]
    pairs.append(("processor", with_what.get("processor", "?")))
    fields = [(tag("code", f"--{name}"), str(value)) for name, value in of_kind(config, "bits", "extent").items()]
    digests = [
        (stage.name, f"{stage.manifest.extent:,}", tag("code", stage.manifest.digest[:16]))
        for stage in view.stages.values()
        if stage.manifest is not None
    ]
    return joined(
        [
            tag(
                "p",
                "These commands give bit-identical results with the same versions on the same kind of processor, for"
                " any number of workers.",
                class_="lead",
            ),
            commands(lines),
            facts(pairs),
            folded("Config", table(("field", "value"), fields)),
            folded("Digests of the results", table(("stage", "extent", "digest"), digests, (1,))) if digests else None,
        ]
    )


def changed_flags(preset: str, config: Any) -> list[str]:
    """The flags whose values differ from the preset."""
    if preset not in PRESETS:
        return []
    before, words = of_kind(PRESETS[preset], "bits", "extent"), []
    for name, value in of_kind(config, "bits", "extent").items():
        if name in before and value == before[name]:
            continue
        if isinstance(value, bool):
            section, _, field = name.rpartition(".")
            words.append(f"--{section}{'.' if section else ''}{'' if value else 'no-'}{field}")
        else:
            words += [f"--{name}", str(value)]
    return words


def _hours(hours: float) -> str:
    return f"{hours:.2g}"


def _uri(view: RunView) -> str:
    return shlex.quote(view.run.uri)
