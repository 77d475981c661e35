"""The report of one run: each part from what is there, or one line with the command that makes it."""

import logging
from collections.abc import Callable
from typing import Any

from wm.errors import UserError
from wm.report import model_section as models
from wm.report import provenance as making
from wm.report import score_section as results
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
    done = sum(station.complete for station in found.stations.values())
    state = "complete" if done == len(found.stations) else f"{done} of {len(found.stations)} stages complete"
    if rounds.parts:
        state = rounds.state
    return page(
        f"{name} · World Models",
        tag("h1", f"{name}: World Models plays {found.config.game}"),
        tag("p", f"Preset {run.preset}, seed {found.config.seed}; {state}.", class_="sub"),
        tag(
            "div",
            _part(results.headline, found),
            _part(results.film, found),
            _part(results.beside_others, found),
            class_="top",
        ),
        shown(rounds) if rounds.parts else None,
        section(
            "How it learned",
            "C is evolved; every few generations the mean of the search distribution is validated on whole"
            " episodes that evolution does not see, and the best-validated mean is the one that is scored.",
            columns(_part(results.by_generation, found), _part(results.by_steps, found)),
            columns(_part(results.episodes, found), _part(results.step_size, found)),
            _part(temperatures, found),
        ),
        section(
            "V: what it sees",
            "The variational autoencoder reduces a frame to a few numbers, z, and back. Frames from held-out episodes.",
            _part(models.reconstructions, found),
            _part(models.traversal, found),
            _part(models.vision_curves, found),
        ),
        section(
            "M: what it expects",
            "The recurrent mixture-density network predicts the next z from z, the action and its memory."
            " Sampled from its own predictions, it dreams; the temperature tau says how wildly.",
            _part(models.filmstrips, found),
            columns(_part(models.memory_curves, found), _part(models.memory_numbers, found)),
            _part(models.calibration, found),
        ),
        section("Where the time went", None, _part(making.time, found)),
        section("How to make it again", None, _part(making.again, found)),
    )


def _part(part: Part, found: RunView) -> Html:
    """What is missing or damaged is said in one line, and the rest of the report stands."""
    try:
        return part(found)
    except UserError as mistake:
        log.info("report: %s", mistake)
        return missing(str(mistake))
