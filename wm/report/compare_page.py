"""The page that compares runs."""

import math
from collections.abc import Sequence
from dataclasses import replace

from wm.errors import UserError
from wm.report.charts import Bar, Colour, Series, bars, lines
from wm.report.compare_data import Group
from wm.report.frames import frame_grid
from wm.report.page import Html, columns, figure, missing, page, section, table, tag
from wm.visuals.pictures import Cell, FrameGrid, Row, examples, filmstrip

COLOURS: tuple[Colour, ...] = ("one", "two", "three", "four", "other")
TAU = 1.0  # of the dreams
MEASURES = {  # name: (description, digits, which value is best)
    "score": ("score in the unmodified game", 0, "more"),
    "score_se": ("standard error of the score", 0, ""),
    "seeds": ("seeds of the evolution", 0, ""),
    "sharpness": ("sharpness of reconstructions (gradient energy relative to the frames)", 3, "1"),
    "sharpness_of_samples": ("sharpness of samples from the prior", 3, "1"),
    "ssim": ("structural similarity of reconstructions", 3, "more"),
    "mse": ("squared error per pixel", 5, "less"),
    "mse_car": ("squared error per pixel, car", 5, "less"),
    "mse_road_edge": ("squared error per pixel, edge of the road", 5, "less"),
    "kl": ("KL divergence of z from its prior, nats", 1, ""),
    "active_units": ("active dimensions of z", 0, ""),
    "probe_speed": ("linear probe from z: speed, R squared, at best 1", 2, "more"),
    "probe_offset": (
        "linear probe from z: position across the road, R squared, at best 1",
        2,
        "more",
    ),
    "probe_curvature": (
        "linear probe from z: curvature of the road ahead, R squared, at best 1",
        2,
        "more",
    ),
    "nll": ("M's NLL of the next z, z scaled to unit variance, nats per dimension", 3, "less"),
    "nll_last_latent": ("NLL of the previous z as the prediction, same units", 3, ""),
    "reward_correlation": ("correlation of predicted and real reward (1 is perfect)", 2, "more"),
    "vision_steps": ("updates of V", 0, ""),
}


def comparison(groups: Sequence[Group], numbers: Sequence[dict[str, float]]) -> str:
    """The whole page."""
    count = sum(len(group.runs) for group in groups)
    return page(
        "Comparison of runs · World Models",
        tag("h1", f"World Models: comparison of {count} runs"),
        tag("p", "All runs use the same rollouts and are measured on the same held-out frames.", class_="sub"),
        section("Runs", None, _runs(groups)),
        section(
            "Metrics",
            "Scores have standard errors over the seeds of the evolution, or over episodes if there is a single seed."
            " The best value of each line is bold; a sharpness of 1 is best.",
            _numbers(groups, numbers),
        ),
        section("Training of C", None, columns(_curves(groups), _scores(groups, numbers))),
        section(
            "V: reconstructions",
            "Held-out frames, selected by the errors of the first run.",
            *map(frame_grid, _reconstructions(groups)),
        ),
        section("V: samples from the prior", None, frame_grid(_samples(groups), "wrap")),
        section("M: dreams", None, *map(_dreams, groups)),
    )


def _runs(groups: Sequence[Group]) -> Html:
    rows = [(group.name, ", ".join(view.run.uri for view in group.runs)) for group in groups]
    return table(("differing flags", "runs"), rows)


def _numbers(groups: Sequence[Group], numbers: Sequence[dict[str, float]]) -> Html:
    rows = []
    for name, (description, digits, better) in MEASURES.items():
        values = [measured.get(name, math.nan) for measured in numbers]
        if any(map(math.isfinite, values)):
            best = _best(values, better)
            cells = [_cell(value, digits, index == best) for index, value in enumerate(values)]
            rows.append((description, *cells))
    heads = ("", *(group.name for group in groups))
    return table(heads, rows, numbers=range(1, len(heads)))


def _cell(value: float, digits: int, best: bool) -> Html | str:
    text = f"{value:,.{digits}f}" if math.isfinite(value) else "-"
    return tag("strong", text) if best else text


def _best(values: Sequence[float], better: str) -> int | None:
    loss = {"more": lambda v: -v, "less": lambda v: v, "1": lambda v: abs(v - 1)}.get(better)
    finite = [index for index, value in enumerate(values) if math.isfinite(value)]
    return min(finite, key=lambda index: loss(values[index])) if loss and len(finite) > 1 else None


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
        return missing("none of these runs has validated a controller yet: run `python -m jobs.evolve`")
    note = "Score of the search distribution's mean on the validation episodes, with standard errors; higher is better."
    return figure("Validation of the mean.", note, lines(series, "generation", "score"))


def _scores(groups: Sequence[Group], numbers: Sequence[dict[str, float]]) -> Html | None:
    rows = [
        Bar(group.name, one["score"], f"{one['score']:,.0f} ± {one['score_se']:,.0f}", error=one["score_se"])
        for group, one in zip(groups, numbers, strict=True)
        if "score" in one
    ]
    note = "Mean score in the unmodified game, with standard errors; higher is better."
    return figure("Score.", note, bars(rows, "scores")) if rows else None


def _reconstructions(groups: Sequence[Group]) -> list[FrameGrid]:
    first = groups[0].first.encoded_frames
    grids = []
    for label, chosen in examples(first):
        rows = [Row("frames", tuple(Cell((first.frames[i].numpy(),)) for i in chosen))]
        for group in groups:
            encoded = group.first.encoded_frames
            cells = (Cell((encoded.decoded[i].numpy(),), f"{encoded.error[i]:.0f}") for i in chosen)
            rows.append(Row(group.name, tuple(cells)))
        note = "Below each reconstruction: its squared error summed over the frame; lower is better."
        grids.append(FrameGrid(label, note, tuple(rows)))
    return grids


def _samples(groups: Sequence[Group]) -> FrameGrid:
    rows = (Row(group.name, tuple(Cell((x,)) for x in group.samples.numpy())) for group in groups)
    note = "Decoded z drawn from the prior, the same z for all runs. Good samples look like frames of the game."
    return FrameGrid("Samples", note, tuple(rows))


def _dreams(group: Group) -> Html:
    view = group.first
    try:
        dreams = filmstrip(view.memory, view.vision, view.held_out_sequences, (TAU,))
    except UserError as error:
        return missing(f"{group.name}: {error}")
    return frame_grid(replace(dreams, title=group.name), "thin")
