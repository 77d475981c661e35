"""The score, the film of the agent, a still of the playable dream, and the curves of the evolution."""

import math
import shlex

import numpy as np

from wm.agents.card import env_steps
from wm.config.schema import Evolve
from wm.errors import UserError
from wm.evolution.validations import validated
from wm.experiments.baselines import measured
from wm.play.still import still
from wm.report.charts import Bar, Series, bars, histogram, lines
from wm.report.learning_curve import curve
from wm.report.page import Html, data_uri, facts, figure, image, joined, tag, with_code
from wm.report.run_view import RunView
from wm.seeds import test_episode
from wm.visuals.drawing import png
from wm.visuals.film import encoded, films
from wm.visuals.replay import AWAKE, real

FILM_STEPS, EVERY, PER_SECOND = 340, 2, 25  # steps of the game and frames per second: the game has 50 steps per second
STILL = (1200, 640)  # pixels


def headline(view: RunView) -> Html:
    """The score, or the best validation while there is no score."""
    manifest, evolved = view.manifest("score"), view.manifest("evolve")
    if manifest is not None:
        metrics = manifest.metrics
        number, error = metrics["score"], metrics["se"]
        note = (
            f"Mean ± standard error of {manifest.extent:,} whole episodes of the unmodified game. Neither training nor"
            " selection uses these episodes."
        )
    else:
        rows = validated(view.rows("evolve"))
        if not rows:
            return joined([view.need("score")])  # raises: no number yet
        best = max(rows, key=lambda row: row["validation"])
        number, error = best["validation"], best["validation_se"]
        note = (
            f"Best validation so far, at generation {int(best['generation']):,}. It is not the score: C is selected by"
            " its validation, so the number is biased upwards."
        )
    numbers = tag("p", f"{number:,.0f}", tag("small", f" ± {error:,.0f}"), class_="hero")
    verdict = _against_baselines(view, number, error)
    return tag(
        "div",
        numbers,
        tag("p", note, class_="lead"),
        tag("p", verdict, class_="lead") if verdict else None,
        facts(_numbers(view, evolved is not None)),
    )


def _against_baselines(view: RunView, score: float, error: float) -> Html | None:
    """Whether the agent beats what needs no learning, by two standard errors of the difference."""
    found = measured(view.run)
    if not found:
        return None
    names = " and ".join(f"{one.name.lower()} ({one.score:,.0f})" for one in found)
    missed = [one for one in found if score - one.score <= 2 * math.hypot(error, one.se)]
    if missed:
        names = " or ".join(f"{one.name.lower()} ({one.score:,.0f})" for one in missed)
        return tag("strong", f"The agent does not beat {names}: it has learned nothing yet that the score shows.")
    return joined([f"The agent beats {names} in the same game with the same time limit."])


def _numbers(view: RunView, evolved: bool) -> list[tuple[str, str]]:
    pairs = []
    if (manifest := view.manifest("score")) is not None:
        scores = sorted(episode["score"] for episode in manifest.content["episodes"])
        pairs.append(("worst, median, best", f"{scores[0]:,.0f}, {float(np.median(scores)):,.0f}, {scores[-1]:,.0f}"))
        pairs.append(("standard deviation of episodes", f"{manifest.metrics['std']:,.0f}"))
    if (manifest := view.manifest("collect")) is not None and manifest.metrics["frames"]:
        pairs.append(("random frames seen", f"{manifest.metrics['frames']:,}"))
    if evolved and (manifest := view.manifest("evolve")) is not None:
        kind = "dream" if view.config.evolve.where == "dream" else "game"
        pairs.append((f"{kind} steps of evolution", f"{manifest.metrics['env_steps']:,}"))
        pairs.append(("generations", f"{manifest.metrics.get('generation', manifest.extent):,}"))
    if (published := view.published) and published.solved:
        pairs.append(("solved at", f"{published.solved:,.0f}"))
    return pairs


def film(view: RunView) -> Html:
    """The agent in the game, V's reconstruction, M's prediction, and M's dream from the same start."""
    agent, number = view.agent, view.config.score.seed
    pictures = list(films(real(agent, test_episode(number), AWAKE + FILM_STEPS, EVERY), 3 if agent.memory else 1))
    pictures = pictures[AWAKE // EVERY :] if len(pictures) > AWAKE // EVERY + 1 else pictures
    description = f"The agent plays test episode {number}, with V's reconstruction"
    note = f"Test episode {number} of the unmodified game. "
    if agent.memory is not None:
        description += ", M's prediction and M's dream"
        note += (
            "Below it: V's reconstruction of the frame; M's prediction one step ahead; and M's dream from the same"
            f" start at tau {view.config.evolve.tau:g}, in which C acts; its pane says when the dream has ended. With a"
            " good V and M the first two look like the game and the dream remains plausible."
        )
    return figure("In the game.", note, _animated(pictures, description))


def playable_dream(view: RunView) -> Html | None:
    """A still of the page to play in the dream; None without M or V's decoder."""
    agent = view.agent
    if agent.memory is None or not agent.decodes:
        return None
    note = with_code(
        "The page to play inside the agent's dream: steer it yourself, or watch C, in a browser. Make it with"
        f" `python -m jobs.play --run {shlex.quote(view.run.uri)}`."
    )
    picture = image(still(agent), "png", "A frame of the dream, with the action and z as bars", *STILL, class_="film")
    return figure("Play in the dream.", note, picture)


def _animated(pictures: list[np.ndarray], description: str) -> Html:
    """The film, or its middle picture for browsers set to reduced motion."""
    height, width = pictures[0].shape[:2]
    moving = image(encoded(pictures, "webp", PER_SECOND), "webp", description, width, height, class_="film")
    unmoving = tag(
        "source", media="(prefers-reduced-motion: reduce)", srcset=data_uri(png(pictures[len(pictures) // 2]), "png")
    )
    return tag("picture", unmoving, moving)


def comparison(view: RunView) -> Html:
    """By ascending score: this run, the baselines, the policy that collected its rollouts, and published results."""
    rows = []
    notes = [
        "Mean scores, and in brackets the standard deviation (SD) of episodes; higher and with a smaller SD is better."
    ]
    for one in (found := measured(view.run)):
        rows.append(Bar(one.name, one.score, _mean_and_sd(one.score, one.std), one.std))
    if found:
        notes.append(
            f"{' and '.join(one.name for one in found)}: {found[0].episodes} test episodes with the game's own limit of"
            f" {found[0].steps:,} steps, measured for this report."
        )
    if (manifest := view.manifest("collect")) is not None and manifest.metrics["frames"]:
        metrics, section = manifest.metrics, view.config.collect
        name = "Random policy of the rollouts" if not section.agent else "Agent that collected the rollouts"
        text = _mean_and_sd(metrics["score"], metrics["score_std"])
        rows.append(Bar(name, metrics["score"], text, metrics["score_std"]))
        notes.append(f"{name}: {manifest.extent:,} episodes of this run's rollouts, cut after {section.steps:,} steps.")
    if view.published is not None:
        rows += [
            Bar(result.agent, result.score, _mean_and_sd(result.score, result.spread), result.spread)
            for result in view.published.results
        ]
        notes.append(f"Other results: {view.published.source}.")
    manifest = view.manifest("score")
    if manifest is not None:
        metrics = manifest.metrics
        text = _mean_and_sd(metrics["score"], metrics["std"])
        rows.append(Bar("This run", metrics["score"], text, metrics["std"], metrics["se"], strong=True))
        notes.append("Thin whiskers: standard deviation of episodes. Thick whisker: standard error of this run's mean.")
    if not rows:
        view.need("score")
    rows.sort(key=lambda row: row.value)
    chart = bars(rows, "Scores of this run and of other agents")
    return figure("Comparison with other agents.", " ".join(notes), chart)


def _mean_and_sd(mean: float, sd: float | None) -> str:
    return f"{mean:,.0f}" if sd is None else f"{mean:,.0f} (SD {sd:,.0f})"


def episodes(view: RunView) -> Html:
    manifest = view.need("score")
    scores = [episode["score"] for episode in manifest.content["episodes"]]
    mean, note = manifest.metrics["score"], f"Scores of all {len(scores):,} test episodes."
    if mean > 0:
        below = sum(score < mean / 2 for score in scores)
        note += f" {below:,} of them score less than half of the mean; a reliable agent has none."
    return figure("Scores of episodes.", note, histogram(scores, "score of an episode", mean))


def _start(section: Evolve) -> str:
    if not section.init:
        return f"from {section.sigma0:g}"
    return f"from {section.init_sigma:g}" if section.init_sigma else "from the last one of another run"


def step_size(view: RunView) -> Html:
    """CMA-ES's sigma."""
    rows = view.rows("evolve")
    section = view.config.evolve
    note = (
        f"Sigma of CMA-ES, {_start(section)}, with {section.covariance} covariance. It falls as the search converges; a"
        " constant or rising sigma means that more generations can help."
    )
    chart = lines([Series("sigma", _xy(rows, "generation", "sigma"))], "generation", "sigma")
    return figure("Step size.", note, chart)


def by_generation(view: RunView) -> Html:
    rows, section = view.rows("evolve"), view.config.evolve
    note = (
        "Validation of the distribution's mean, with standard errors, and the scores of"
        f" {section.population} candidates; higher is better."
    )
    if section.where == "dream":
        note += " The candidates are scored in the dream."
    elif section.patience:
        note += f" An episode of a candidate ends after {section.patience} steps without reward."
    return figure(
        "Score against generation.",
        note,
        lines(
            [
                Series("worst to best", _xy(rows, "generation", "mean"), "other", band=_band(rows), line=False),
                Series("population's mean", _xy(rows, "generation", "mean"), "other", quiet=True),
                _validated(rows, "generation"),
            ],
            "generation",
            "score",
            level=_solved(view),
        ),
    )


def by_steps(view: RunView) -> Html:
    """On a logarithmic axis, as published curves may need a thousand times as many steps."""
    if view.config.evolve.where == "dream":
        label, series = "steps of the dream", [_validated(view.rows("evolve"), "env_steps")]
        note = "Validation with standard errors, on a logarithmic axis; further up and to the left is better."
    else:
        label, series = "steps of the game", _by_game_steps(view)
        note = (
            "Validation with standard errors over all steps of the game, rollouts included, on a logarithmic axis;"
            " further up and to the left is better."
        )
    published = view.published
    if published is not None and published.curve:
        series.append(Series("published", published.curve, "other", dashed=True, dots=True))
        note += f" Published: {published.curve_about}."
    return figure("Score against steps.", note, lines(series, label, "score", log_x=True, level=_solved(view)))


def _by_game_steps(view: RunView) -> list[Series]:
    points = curve(view.run)
    if not points:
        _validated(view.rows("evolve"), "env_steps")  # raises: what is missing
    errors = [point.error for point in points]
    series = [Series("validation", [(point.steps, point.score) for point in points], "one", errors=errors, dots=True)]
    manifest = view.manifest("score")
    if manifest is not None and view.manifest("evolve") is not None:
        point = (env_steps(view.run), float(manifest.metrics["score"]))
        series.append(
            Series("score", [point], "two", errors=[manifest.metrics["se"]], dots=True, line=False, shape="diamond")
        )
    return series


def _validated(rows: list[dict], x: str) -> Series:
    kept = validated(rows)
    if not kept:
        raise UserError("no validation yet: let `python -m jobs.evolve` run until its first validation")
    errors = [row["validation_se"] for row in kept]
    return Series("validation", _xy(kept, x, "validation"), "one", errors=errors, dots=len(kept) <= 60)


def _xy(rows: list[dict], x: str, y: str) -> list[tuple[float, float]]:
    return [(row[x], row[y]) for row in rows if x in row and y in row]


def _band(rows: list[dict]) -> list[tuple[float, float]]:
    return [(row["worst"], row["best"]) for row in rows]


def _solved(view: RunView) -> tuple[float, str] | None:
    published = view.published
    return (published.solved, f"solved: {published.solved:,.0f}") if published and published.solved else None
