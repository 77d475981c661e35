"""What came of a run: the score beside those of others, the film, the curves of evolution."""

import numpy as np

from wm.agents.card import env_steps
from wm.config.schema import Evolve
from wm.errors import UserError
from wm.report.charts import Bar, Series, bars, histogram, lines
from wm.report.learning_curve import curve
from wm.report.page import Html, data_uri, facts, figure, image, joined, tag
from wm.report.run_view import RunView
from wm.seeds import test_episode
from wm.visuals.drawing import png
from wm.visuals.film import encoded, films
from wm.visuals.replay import AWAKE, real

FILM_STEPS, EVERY, PER_SECOND = 340, 2, 25  # of the game: its own speed is 50 a second


def headline(found: RunView) -> Html:
    """The score in one number, or what stands for it until there is one."""
    made, evolved = found.manifest("score"), found.manifest("evolve")
    if made is not None:
        metrics = made.metrics
        number, error = metrics["score"], metrics["se"]
        means = (
            f"mean ± standard error of {made.extent:,} whole episodes of the unmodified game, which neither training"
            " nor selection has seen"
        )
    else:
        rows = [row for row in found.rows("evolve") if "validation" in row]
        if not rows:
            return joined([found.need("score")])  # raises: no number yet
        best = max(rows, key=lambda row: row["validation"])
        number, error = best["validation"], best["validation_se"]
        means = f"validation so far, generation {int(best['generation']):,}; not a score: C was chosen by it"
    numbers = tag("p", f"{number:,.0f}", tag("small", f" ± {error:,.0f}"), class_="hero")
    return tag("div", numbers, tag("p", means, class_="lead"), facts(_numbers(found, evolved is not None)))


def _numbers(found: RunView, evolved: bool) -> list[tuple[str, str]]:
    pairs = []
    if (made := found.manifest("score")) is not None:
        scores = sorted(episode["score"] for episode in made.content["episodes"])
        pairs.append(("worst, median, best", f"{scores[0]:,.0f}, {float(np.median(scores)):,.0f}, {scores[-1]:,.0f}"))
        pairs.append(("between episodes (deviation)", f"± {made.metrics['std']:,.0f}"))
    if (made := found.manifest("collect")) is not None and made.metrics["frames"]:
        pairs.append(("random frames seen", f"{made.metrics['frames']:,}"))
    if evolved and (made := found.manifest("evolve")) is not None:
        kind = "dream" if found.config.evolve.where == "dream" else "game"
        pairs.append((f"{kind} steps of evolution", f"{made.metrics['env_steps']:,}"))
        pairs.append(("generations", f"{made.extent:,}"))
    if (published := found.published) and published.solved:
        pairs.append(("the game counts as solved at", f"{published.solved:,.0f}"))
    return pairs


def film(found: RunView) -> Html:
    """The agent in the game, what V sees, what M expects, and what it dreams from the same start."""
    agent, number = found.agent, found.config.score.seed
    pictures = list(films(real(agent, test_episode(number), AWAKE + FILM_STEPS, EVERY), 3 if agent.memory else 1))
    pictures = pictures[AWAKE // EVERY :] if len(pictures) > AWAKE // EVERY + 1 else pictures
    about = f"The agent plays test episode {number}; beside the game what V sees"
    note = f"test episode {number} of the unmodified game. "
    if agent.memory is not None:
        about += ", what M expects and what M dreams"
        note += (
            "Below it: the frame as V keeps it; what M expected to see, one step ahead; and M's dream, which begins"
            f" here with what the agent remembers and then goes its own way at tau {found.config.evolve.tau:g}, with C"
            " acting in it."
        )
    return figure("In the game.", note, _animated(pictures, about))


def _animated(pictures: list[np.ndarray], about: str) -> Html:
    """The film, or its middle picture for readers who want nothing to move."""
    height, width = pictures[0].shape[:2]
    moving = image(encoded(pictures, "webp", PER_SECOND), "webp", about, width, height, class_="film")
    still = tag(
        "source", media="(prefers-reduced-motion: reduce)", srcset=data_uri(png(pictures[len(pictures) // 2]), "png")
    )
    return tag("picture", still, moving)


def beside_others(found: RunView) -> Html:
    """Bars, the best last: this run, the random policy, and what is published."""
    rows, notes = [], []
    if (made := found.manifest("collect")) is not None and made.metrics["frames"]:
        metrics, section = made.metrics, found.config.collect
        name = "This run's random policy" if not section.agent else "The agent that collected"
        says = f"{metrics['score']:,.0f} ± {metrics['score_std']:,.0f}"
        rows.append(Bar(name, metrics["score"], says, metrics["score_std"]))
        notes.append(
            f"{name}: the {made.extent:,} episodes of this run's own rollouts, cut after {section.steps:,} steps."
        )
    if found.published is not None:
        for result in found.published.results:
            spread = f" ± {result.spread:,.0f}" if result.spread is not None else ""
            rows.append(Bar(result.agent, result.score, f"{result.score:,.0f}{spread}", result.spread))
        notes.append(f"Others: {found.published.source}; their ± is the deviation between episodes.")
    made = found.manifest("score")
    if made is not None:
        metrics = made.metrics
        says = f"{metrics['score']:,.0f} ± {metrics['se']:,.0f} (standard error)"
        rows.append(Bar("This run", metrics["score"], says, metrics["std"], metrics["se"], strong=True))
        notes.append("Whiskers: thin the deviation between episodes, thick the standard error of this run's mean.")
    if not rows:
        found.need("score")
    rows.sort(key=lambda row: row.value)
    return figure("Beside others.", " ".join(notes), bars(rows, "Scores of this run, the random policy and others"))


def episodes(found: RunView) -> Html:
    made = found.need("score")
    scores = [episode["score"] for episode in made.content["episodes"]]
    mean, note = made.metrics["score"], f"all {len(scores):,} test episodes"
    if mean > 0:
        note += f"; {sum(score < mean / 2 for score in scores):,} of them below half of the mean"
    return figure("Episode by episode.", note, histogram(scores, "score of an episode", mean))


def _start(section: Evolve) -> str:
    if not section.init:
        return f"started with {section.sigma0:g}"
    return f"started with {section.init_sigma:g}" if section.init_sigma else "started where another run's was"


def step_size(found: RunView) -> Html:
    """How far around its mean CMA-ES looks."""
    rows = found.rows("evolve")
    section = found.config.evolve
    note = f"sigma; {_start(section)}, {section.covariance} covariance"
    return figure(
        "How far CMA-ES looks.", note, lines([Series("sigma", _xy(rows, "generation", "sigma"))], "generation", "sigma")
    )


def by_generation(found: RunView) -> Html:
    rows, section = found.rows("evolve"), found.config.evolve
    note = f"validation with its standard error; population: {section.population} candidates"
    if section.where == "dream":
        note += ", scored in the dream"
    elif section.patience:
        note += f", whose episodes end after {section.patience} steps without reward, before they cost more"
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
            level=_solved(found),
        ),
    )


def by_steps(found: RunView) -> Html:
    """On one axis with what has been published, which may be a thousand times further out."""
    if found.config.evolve.where == "dream":
        label, series = "steps of the dream", [_validated(found.rows("evolve"), "env_steps")]
        note = "logarithmic; validation with its standard error"
    else:
        label, series = "steps of the game", _by_game_steps(found)
        note = "logarithmic; all steps that the agent took, rollouts included; validation with its standard error"
    published = found.published
    if published is not None and published.curve:
        series.append(Series("published", published.curve, "other", dashed=True, dots=True))
        note += f"; published: {published.curve_about}"
    return figure("Score against steps.", note, lines(series, label, "score", log_x=True, level=_solved(found)))


def _by_game_steps(found: RunView) -> list[Series]:
    points = curve(found.run)
    if not points:
        _validated(found.rows("evolve"), "env_steps")  # raises: what is missing
    errors = [point.error for point in points]
    series = [Series("validation", [(point.steps, point.score) for point in points], "one", errors=errors, dots=True)]
    made = found.manifest("score")
    if made is not None and found.manifest("evolve") is not None:
        point = (env_steps(found.run), float(made.metrics["score"]))
        series.append(
            Series("score", [point], "two", errors=[made.metrics["se"]], dots=True, line=False, shape="diamond")
        )
    return series


def _validated(rows: list[dict], x: str) -> Series:
    kept = [row for row in rows if "validation" in row]
    if not kept:
        raise UserError("evolution has not come to its first validation yet: let it go on")
    errors = [row["validation_se"] for row in kept]
    return Series("validation", _xy(kept, x, "validation"), "one", errors=errors, dots=len(kept) <= 60)


def _xy(rows: list[dict], x: str, y: str) -> list[tuple[float, float]]:
    return [(row[x], row[y]) for row in rows if x in row and y in row]


def _band(rows: list[dict]) -> list[tuple[float, float]]:
    return [(row["worst"], row["best"]) for row in rows]


def _solved(found: RunView) -> tuple[float, str] | None:
    published = found.published
    return (published.solved, f"solved: {published.solved:,.0f}") if published and published.solved else None
