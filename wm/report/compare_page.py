"""The page that shows runs side by side."""

import math
from collections.abc import Sequence

from wm.errors import UserError
from wm.report.charts import Bar, Colour, Series, bars, lines
from wm.report.compare_data import Group
from wm.report.model_section import tile
from wm.report.page import Html, columns, figure, missing, page, section, strip, table, tag
from wm.visuals.pictures import Strips, examples

COLOURS: tuple[Colour, ...] = ("one", "two", "three", "four", "other")
TAU = 1.0  # of the dreams that are shown
MEASURES = {  # name: (what it is, digits, what is better)
    "score": ("score in the unmodified game", 0, "more"),
    "score_se": ("its standard error", 0, ""),
    "seeds": ("seeds of the evolution", 0, ""),
    "sharpness": ("sharpness of reconstructions (gradient energy, share of the frames')", 3, "1"),
    "sharpness_of_samples": ("sharpness of samples from the prior", 3, "1"),
    "ssim": ("structural similarity of reconstructions", 3, "more"),
    "mse": ("squared error of a pixel", 5, "less"),
    "mse_car": ("the same on the car", 5, "less"),
    "mse_road_edge": ("the same on the edge of the road", 5, "less"),
    "kl": ("what z tells, nats", 1, ""),
    "active_units": ("active numbers of z", 0, ""),
    "probe_speed": ("speed, guessed linearly from z (R squared)", 2, "more"),
    "probe_offset": ("place across the road, the same", 2, "more"),
    "probe_curvature": ("curvature of the road ahead, the same", 2, "more"),
    "nll": ("M's NLL of the next z, z scaled to unit variance, nats a dimension", 3, "less"),
    "nll_last_latent": ("the same of expecting no change", 3, ""),
    "reward_correlation": ("correlation of expected and real reward", 2, "more"),
    "vision_steps": ("updates of V", 0, ""),
}


def comparison(groups: Sequence[Group], numbers: Sequence[dict[str, float]]) -> str:
    """The whole page."""
    count = sum(len(group.runs) for group in groups)
    return page(
        "Runs side by side · World Models",
        tag("h1", f"World Models: {count} runs side by side"),
        tag("p", "All trained on the same rollouts and measured on the same held-out frames.", class_="sub"),
        section("The runs", None, _runs(groups)),
        section(
            "In numbers",
            "Errors of scores are standard errors over the seeds of the evolution; of a single seed, over episodes."
            " The best of each line, where there is a best, is marked.",
            _numbers(groups, numbers),
        ),
        section("How C learned", None, columns(_curves(groups), _scores(groups, numbers))),
        section("V: what it sees", "Held-out frames, chosen by the first one's errors.", *_reconstructions(groups)),
        section("V: what it makes of nothing", "z drawn from the prior, the same for all.", *_samples(groups)),
        section("M: what it dreams", None, *map(_dreams, groups)),
    )


def _runs(groups: Sequence[Group]) -> Html:
    rows = [(group.name, ", ".join(found.run.uri for found in group.runs)) for group in groups]
    return table(("what sets it apart", "runs"), rows)


def _numbers(groups: Sequence[Group], numbers: Sequence[dict[str, float]]) -> Html:
    rows = []
    for name, (says, digits, better) in MEASURES.items():
        values = [one.get(name, math.nan) for one in numbers]
        if any(map(math.isfinite, values)):
            best = _best(values, better)
            cells = [_cell(value, digits, at == best) for at, value in enumerate(values)]
            rows.append((says, *cells))
    heads = ("", *(group.name for group in groups))
    return table(heads, rows, numbers=range(1, len(heads)))


def _cell(value: float, digits: int, best: bool) -> Html | str:
    shown = f"{value:,.{digits}f}" if math.isfinite(value) else "-"
    return tag("strong", shown) if best else shown


def _best(values: Sequence[float], better: str) -> int | None:
    far = {"more": lambda v: -v, "less": lambda v: v, "1": lambda v: abs(v - 1)}.get(better)
    finite = [at for at, value in enumerate(values) if math.isfinite(value)]
    return min(finite, key=lambda at: far(values[at])) if far and len(finite) > 1 else None


def _curves(groups: Sequence[Group]) -> Html:
    series = []
    for index, group in enumerate(groups):
        points = group.curve()
        series.append(
            Series(
                group.name,
                [(generation, value) for generation, value, _ in points],
                COLOURS[min(index, len(COLOURS) - 1)],
                errors=[error for *_, error in points],
                dots=True,
            )
        )
    if not any(one.points for one in series):
        return missing("no run here has validated a controller yet: `python -m jobs.evolve` does")
    return figure("Validation of the mean.", "with its error", lines(series, "generation", "score"))


def _scores(groups: Sequence[Group], numbers: Sequence[dict[str, float]]) -> Html | None:
    rows = [
        Bar(group.name, one["score"], f"{one['score']:,.0f} ± {one['score_se']:,.0f}", error=one["score_se"])
        for group, one in zip(groups, numbers, strict=True)
        if "score" in one
    ]
    return figure("Score.", "in the unmodified game, with its error", bars(rows, "scores")) if rows else None


def _reconstructions(groups: Sequence[Group]) -> list[Html]:
    shown = []
    for name, chosen in examples(groups[0].first.seen):
        rows = [strip([(tile(groups[0].first.seen.frames[i], "a frame"), None) for i in chosen.tolist()], "the frames")]
        for group in groups:
            seen = group.first.seen
            cells = [(tile(seen.decoded[i], "as V sees it"), f"{seen.error[i]:.0f}") for i in chosen.tolist()]
            rows.append(strip(cells, group.name))
        shown.append(figure(f"{name}.", "below each its squared error, summed over the frame", *rows))
    return shown


def _samples(groups: Sequence[Group]) -> list[Html]:
    return [strip([(tile(x, "a sample"), None) for x in group.samples], group.name, "wrap") for group in groups]


def _dreams(group: Group) -> Html:
    found = group.first
    try:
        shown = Strips(found.memory, found.vision, found.held, (TAU,))
    except UserError as mistake:
        return missing(f"{group.name}: {mistake}")
    rows = []
    for label, frames in zip(shown.labels, shown.frames, strict=True):
        cells = [(tile(frame, f"{label}, {head}"), head) for frame, head in zip(frames, shown.heads, strict=True)]
        rows.append(strip(cells, label, "thin"))
    return figure(group.name, shown.about, *rows)
