"""The report of one run: each part from what is there, or one line with the command that makes it."""

import logging
from collections.abc import Callable
from typing import Any

from wm.errors import UserError
from wm.report import model_section, provenance, score_section
from wm.report.page import Html, columns, missing, page, section, tag
from wm.report.rounds_section import Rounds, shown
from wm.report.run_view import RunView
from wm.report.temperature_section import temperatures
from wm.runs.run import Run

log = logging.getLogger(__name__)

Part = Callable[[RunView], Any]


def run_report(run: Run) -> str:
    """The whole page; where a run has rounds, they come first, then what there is to say of the best one."""
    rounds = Rounds(run)
    found = RunView(rounds.best if rounds.parts else run)
    name = run.uri.rstrip("/").rpartition("/")[2]
    done = sum(stage.complete for stage in found.stages.values())
    state = "complete" if done == len(found.stages) else f"{done} of {len(found.stages)} stages complete"
    if rounds.parts:
        state = rounds.state
    return page(
        f"{name} · World Models",
        tag("h1", f"{name}: World Models plays {found.config.game}"),
        tag("p", f"Preset {run.preset}, seed {found.config.seed}; {state}.", class_="sub"),
        tag(
            "div",
            _part(score_section.headline, found),
            _part(score_section.film, found),
            _part(score_section.beside_others, found),
            class_="top",
        ),
        shown(rounds) if rounds.parts else None,
        section(
            "How it learned",
            "C is evolved; every few generations the mean of the search distribution is validated on whole"
            " episodes that evolution does not see, and the best-validated mean is the one that is scored.",
            columns(_part(score_section.by_generation, found), _part(score_section.by_steps, found)),
            columns(_part(score_section.episodes, found), _part(score_section.step_size, found)),
            _part(temperatures, found),
        ),
        section(
            "V: what it sees",
            "The variational autoencoder reduces a frame to a few numbers, z, and back. Frames from held-out episodes.",
            _part(model_section.reconstructions, found),
            _part(model_section.traversal, found),
            _part(model_section.vision_curves, found),
        ),
        section(
            "M: what it expects",
            "The recurrent mixture-density network predicts the next z from z, the action and its memory."
            " Sampled from its own predictions, it dreams; the temperature tau says how wildly.",
            _part(model_section.filmstrips, found),
            columns(_part(model_section.memory_curves, found), _part(model_section.memory_numbers, found)),
            _part(model_section.calibration, found),
        ),
        section("Where the time went", None, _part(provenance.time, found)),
        section("How to make it again", None, _part(provenance.again, found)),
    )


def _part(part: Part, found: RunView) -> Html:
    """What is missing or damaged is said in one line, and the rest of the report stands."""
    try:
        return part(found)
    except UserError as mistake:
        log.info("report: %s", mistake)
        return missing(str(mistake))
