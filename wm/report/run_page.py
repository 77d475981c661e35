"""The report of one run. A part that can't be shown is replaced by one line with the command that produces it."""

import logging
from collections.abc import Callable
from typing import Any

from wm.errors import UserError
from wm.report import model_section, provenance, score_section
from wm.report.page import Html, columns, missing, page, section, tag
from wm.report.rounds_section import Rounds, rounds_section
from wm.report.run_view import RunView
from wm.report.temperature_section import temperatures
from wm.runs.run import Run

log = logging.getLogger(__name__)

Part = Callable[[RunView], Any]


def run_report(run: Run) -> str:
    """The whole page. If the run has rounds, their comparison comes first and the rest is about the best round."""
    rounds = Rounds(run)
    view = RunView(rounds.best if rounds.parts else run)
    name = run.uri.rstrip("/").rpartition("/")[2]
    done = sum(stage.complete for stage in view.stages.values())
    state = "complete" if done == len(view.stages) else f"{done} of {len(view.stages)} stages complete"
    if rounds.parts:
        state = rounds.state
    return page(
        f"{name} · World Models",
        tag("h1", f"{name}: World Models plays {view.config.game}"),
        tag("p", f"Preset {run.preset}, seed {view.config.seed}; {state}.", class_="sub"),
        tag(
            "div",
            _part(score_section.headline, view),
            tag("div", _part(score_section.film, view), _part(score_section.playable_dream, view)),
            _part(score_section.comparison, view),
            class_="top",
        ),
        rounds_section(rounds) if rounds.parts else None,
        section(
            "Training of C",
            "CMA-ES evolves C. Every few generations the mean of the search distribution is validated on whole episodes"
            " that the evolution does not use; the mean with the best validation is scored.",
            columns(_part(score_section.by_generation, view), _part(score_section.by_steps, view)),
            columns(_part(score_section.episodes, view), _part(score_section.step_size, view)),
            _part(temperatures, view),
        ),
        section(
            "V: reconstructions",
            "The variational autoencoder encodes a frame as a small vector z and decodes it again. All frames come from"
            " held-out episodes.",
            _part(model_section.reconstructions, view),
            _part(model_section.traversal, view),
            _part(model_section.vision_curves, view),
        ),
        section(
            "M: predictions and dreams",
            "The recurrent mixture-density network predicts the next z from z, the action and its hidden state. In a"
            " dream it receives samples of its own predictions; a higher temperature tau makes them more random.",
            _part(model_section.filmstrips, view),
            columns(_part(model_section.memory_curves, view), _part(model_section.memory_baselines, view)),
            _part(model_section.calibration, view),
        ),
        section("Cost", None, _part(provenance.cost, view)),
        section("Reproduction", None, _part(provenance.reproduction, view)),
    )


def _part(part: Part, view: RunView) -> Html:
    """The part, or one line if its data are missing or damaged."""
    try:
        return part(view)
    except UserError as error:
        log.info("report: %s", error)
        return missing(str(error))
