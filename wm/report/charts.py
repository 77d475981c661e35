"""Charts as inline SVG, in the page's colours for light and dark mode, with the values of a point as its tooltip.

A chart is 420 units wide, which keeps its text readable on a phone and not too large on a desktop.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from wm.report.page import Html, tag
from wm.visuals.drawing import ticks

WIDTH, HEIGHT = 420, 260
LINE = 62  # characters that fit into the width
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 24, 40  # margins
Colour = Literal["one", "two", "three", "four", "other"]


@dataclass(frozen=True)
class Series:
    """Points (x, y), optionally with error bars or a band."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: Colour = "one"
    errors: Sequence[float] | None = None
    band: Sequence[tuple[float, float]] | None = None  # (low, high)
    line: bool = True
    dashed: bool = False
    dots: bool = False
    shape: Literal["dot", "diamond"] = "dot"
    quiet: bool = False  # thin and pale, for context


class _Axes:
    """Maps values to coordinates in the SVG."""

    def __init__(
        self, series: Sequence[Series], log_x: bool, low: float | None, high: float | None, counts: bool = False
    ):
        self.log_x, self.counts = log_x, counts  # counts: only whole numbers on the vertical axis
        xs = [self.scaled(x) for one in series for x, _ in one.points]
        self.whole = all(float(x).is_integer() for one in series for x, _ in one.points)  # rounds, generations
        ys = [y for one in series for _, y in one.points]
        for one in series:
            ys += [y + sign * e for (_, y), e in zip(one.points, one.errors or (), strict=False) for sign in (-1, 1)]
            ys += [edge for edges in one.band or () for edge in edges]
        self.x0, self.x1 = _range(xs)
        self.y0, self.y1 = _range(ys)
        room = 0.06 * (self.y1 - self.y0)
        self.y0 = self.y0 - room if low is None else low
        self.y1 = self.y1 + room if high is None else max(high, self.y1 + room)

    def scaled(self, x: float) -> float:
        return math.log10(x) if self.log_x else x

    def x(self, value: float) -> float:
        return LEFT + (self.scaled(value) - self.x0) / (self.x1 - self.x0) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return TOP + (self.y1 - value) / (self.y1 - self.y0) * (HEIGHT - TOP - BOTTOM)

    def drawn(self, x_label: str, y_label: str) -> list[Html]:
        bottom, parts = HEIGHT - BOTTOM, []
        for value in ticks(self.y0, self.y1, 5):
            if self.counts and not float(value).is_integer():
                continue
            y = self.y(value)
            parts.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, **_f(y1=y, y2=y), class_="grid"))
            parts.append(_text(short(value), LEFT - 6, y + 4, "end"))
        for value in self._columns():
            x = self.x(value)
            parts.append(tag("line", y1=bottom, y2=bottom + 4, **_f(x1=x, x2=x), class_="axis"))
            parts.append(_text(short(value), x, bottom + 17, "middle"))
        parts.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=bottom, y2=bottom, class_="axis"))
        parts.append(_text(x_label, (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 4, "middle"))
        parts.append(_text(y_label, LEFT, TOP - 10, "start"))
        return parts

    def _columns(self) -> list[float]:
        if not self.log_x:
            values = [round(float(value), 9) for value in ticks(self.x0, self.x1, 6)]
            return [value for value in values if value.is_integer() or not self.whole]
        decades = range(math.ceil(self.x0 - 1e-9), math.floor(self.x1 + 1e-9) + 1)
        if len(decades) > 2:
            step = len(decades) // 6 + 1 if len(decades) > 6 else 1
            return [10.0**power for power in decades][::step]
        low, high = 10**self.x0, 10**self.x1
        steps = [digit * 10.0**power for power in range(decades.start - 1, decades.stop) for digit in (1, 2, 5)]
        found = [value for value in steps if low <= value * (1 + 1e-9) and value <= high * (1 + 1e-9)]
        return found if len(found) > 1 else ticks(low, high, 4).tolist()  # within a fraction of a decade


def lines(
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    *,
    log_x: bool = False,
    low: float | None = None,
    high: float | None = None,
    level: tuple[float, str] | None = None,
    borders: Sequence[tuple[float, str]] = (),
) -> Html:
    """Curves over x without their non-finite points.

    `level` is the value and the name of a horizontal line; `borders` are the ends of parts of the x axis, with the
    names of the parts.
    """
    series = [one for one in (_finite(one, log_x) for one in series) if one.points]
    if not series:
        return tag("p", "No numbers yet.", class_="missing")
    axes = _Axes(series, log_x, low, high)
    parts = axes.drawn(x_label, y_label)
    if level and axes.y0 < level[0] < axes.y1:
        y = axes.y(level[0])
        across = _f(x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y)
        parts.append(tag("line", **across, stroke="var(--faint)", stroke_dasharray="2 3"))
        parts.append(_text(level[1], WIDTH - RIGHT, y - 4, "end", class_="halo"))
    for number, (end, name) in enumerate(borders):
        x, row = axes.x(min(end, axes.x1)), TOP + 4 + 12 * (number % 3)  # three rows, so that names do not overlap
        down = _f(x1=x, x2=x, y1=row, y2=HEIGHT - BOTTOM)
        parts.append(tag("line", **down, stroke="var(--faint)", stroke_dasharray="2 3"))
        parts.append(_text(name, x - 3, row + 4, "end", class_="halo"))
    for one in series:
        parts += _curve(one, axes, x_label)
    about = f"{y_label} over {x_label}: {', '.join(one.name for one in series)}"
    return tag("div", legend(series), _svg(parts, HEIGHT, about))


def _curve(one: Series, axes: _Axes, x_label: str) -> list[Html]:
    colour, parts = f"var(--{one.colour})", []
    places = [(axes.x(x), axes.y(y)) for x, y in one.points]
    if one.band:
        over = [(axes.x(x), axes.y(high)) for (x, _), (_, high) in zip(one.points, one.band, strict=True)]
        under = [(axes.x(x), axes.y(low)) for (x, _), (low, _) in zip(one.points, one.band, strict=True)]
        parts.append(tag("polygon", points=_points(over + under[::-1]), fill=colour, fill_opacity="0.14"))
    if one.line and len(places) > 1:
        look = {"stroke_width": 1.25, "stroke_opacity": 0.8} if one.quiet else {"stroke_width": 2}
        dash = "5 4" if one.dashed else None
        parts.append(
            tag(
                "polyline",
                points=_points(places),
                fill="none",
                stroke=colour,
                stroke_linejoin="round",
                stroke_dasharray=dash,
                **look,
            )
        )
    for (x, value), error, (cx, cy) in zip(one.points, one.errors or [0] * len(places), places, strict=True):
        if error:
            ends = _f(x1=cx, x2=cx, y1=axes.y(value - error), y2=axes.y(value + error))
            parts.append(tag("line", **ends, stroke=colour, stroke_width=1.5, stroke_opacity=0.6))
        if one.dots or len(places) == 1:
            tooltip = f"{one.name}: {value:,.4g}{f' ± {error:,.2g}' if error else ''} at {x:,.6g} {x_label}"
            parts.append(_dot(cx, cy, colour, one.shape, tooltip))
    return parts


def legend(series: Sequence[Series]) -> Html | None:
    """The names of the curves; None for a single curve, which the caption names."""
    if len(series) < 2:
        return None
    entries = []
    for one in series:
        colour = f"var(--{one.colour})"
        mark = []
        if one.band:
            mark.append(tag("rect", x=0, y=0, width=22, height=10, fill=colour, fill_opacity="0.18"))
        if one.line:
            width = 1.25 if one.quiet else 2
            dash = "5 4" if one.dashed else None
            mark.append(tag("path", d="M0 5H22", stroke=colour, stroke_width=width, stroke_dasharray=dash))
        if one.dots:
            mark.append(_dot(11, 5, colour, one.shape))
        entries.append(tag("span", tag("svg", mark, viewBox="0 0 22 10", aria_hidden="true"), one.name))
    return tag("div", entries, class_="legend")


@dataclass(frozen=True)
class Bar:
    name: str
    value: float
    text: str
    spread: float | None = None  # thin whisker
    error: float | None = None  # thick whisker
    strong: bool = False


def bars(rows: Sequence[Bar], about: str) -> Html:
    """Horizontal bars from 0, with the name and the value above each.

    If there are negative values, bars would show the worst as the longest: dots on a common scale take their place.
    """
    reach = [(row.value, max(row.spread or 0, row.error or 0)) for row in rows]
    edges = [0.0, *(value + sign * whisker for value, whisker in reach for sign in (-1, 1))]
    low, high = min(edges), max(edges)
    if min(row.value for row in rows) >= 0:
        low = 0.0  # a whisker below 0 is cut
    row_height, parts = 34, []

    def x(value: float) -> float:
        return 1 + (value - low) / ((high - low) or 1) * (WIDTH - 2)

    for index, row in enumerate(rows):
        top = index * row_height
        colour = "var(--one)" if row.strong else "var(--other)"
        weight = "650" if row.strong else None
        room = LINE - len(row.text)
        name = row.name if len(row.name) <= room else f"{row.name[: room - 1]}…"
        parts.append(_text(name, 0, top + 12, "start", class_="ink", font_weight=weight))
        parts.append(_text(row.text, WIDTH, top + 12, "end", class_="ink", font_weight=weight))
        if low < 0:
            parts.append(tag("line", x1=1, x2=WIDTH - 1, **_f(y1=top + 22.5, y2=top + 22.5), class_="grid"))
        else:
            left, right = sorted((x(0), x(row.value)))
            parts.append(tag("rect", y=top + 18, height=9, rx=2, fill=colour, **_f(x=left, width=max(1, right - left))))
        for size, width in ((row.spread, 1), (row.error, 3)):
            if size:
                ends = _f(x1=max(1.0, x(row.value - size)), x2=x(row.value + size), y1=top + 22.5, y2=top + 22.5)
                parts.append(tag("line", **ends, stroke="var(--ink)", stroke_width=width))
        if low < 0:
            zero = _f(x1=x(0), x2=x(0), y1=top + 17, y2=top + 28)
            parts += [tag("line", **zero, class_="axis"), _dot(x(row.value), top + 22.5, colour, "dot")]
    height = len(rows) * row_height
    if low < 0:
        parts.append(_text("0", x(0), height + 10, "middle"))
        height += 14
    return _svg(parts, height, about)


def histogram(values: Sequence[float], x_label: str, mean: float | None = None) -> Html:
    """Counts of values in about twelve bins with a round width."""
    data = np.array([value for value in values if math.isfinite(value)])
    if not len(data):
        return tag("p", "No numbers yet.", class_="missing")
    low, high = float(data.min()), float(data.max())
    marks = ticks(low, high, 12) if high > low else np.array([low])
    width = float(marks[1] - marks[0]) if len(marks) > 1 else max(1.0, abs(low))
    begin = math.floor(low / width) * width
    edges = begin + width * np.arange(math.floor((high - begin) / width) + 2)
    counts, _ = np.histogram(data, edges)
    axes = _Axes([Series("", [(edges[0], 0), (edges[-1], int(counts.max()))])], False, 0, None, counts=True)
    parts = axes.drawn(x_label, "episodes")
    for count, left, right in zip(counts.tolist(), edges, edges[1:], strict=False):
        if count:
            x0, x1 = axes.x(left) + 1, axes.x(right) - 1
            box = _f(x=x0, width=max(1, x1 - x0), y=axes.y(count), height=axes.y(0) - axes.y(count))
            tooltip = tag("title", f"{count} from {left:,.6g} to {right:,.6g}")
            parts.append(tag("rect", tooltip, **box, fill="var(--one)", fill_opacity=0.75))
    if mean is not None:
        x = axes.x(mean)
        parts.append(tag("line", **_f(x1=x, x2=x), y1=TOP, y2=HEIGHT - BOTTOM, stroke="var(--ink)", stroke_width=1.5))
        anchor, off = ("end", -5) if x > WIDTH / 2 else ("start", 5)
        parts.append(_text(f"mean {mean:,.0f}", x + off, TOP + 10, anchor, class_="ink halo"))
    return _svg(parts, HEIGHT, f"{len(data)} values of {x_label}, from {low:,.4g} to {high:,.4g}")


def short(value: float) -> str:
    """A number on an axis: 0.3, 150, 20k, 1.5M, 2G."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if letter == 'k' else size):g}{letter}"
    return f"{value:g}"


def _svg(parts: Sequence[Any], height: float, about: str) -> Html:
    return tag("svg", parts, viewBox=f"0 0 {WIDTH} {height:g}", role="img", aria_label=about)


def _dot(x: float, y: float, colour: str, shape: str, tooltip: str | None = None) -> Html:
    title = tag("title", tooltip) if tooltip else None
    edge = {"stroke": "var(--paper)", "stroke_width": 1.5}
    if shape == "diamond":
        d = f"M{x:.1f} {y - 6:.1f}l6 6l-6 6l-6 -6z"
        return tag("path", title, d=d, fill=colour, **edge)
    return tag("circle", title, **_f(cx=x, cy=y), r=4, fill=colour, **edge)


def _text(words: str, x: float, y: float, anchor: str, **more: Any) -> Html:
    return tag("text", words, **_f(x=x, y=y), text_anchor=anchor, **more)


def _f(**numbers: float) -> dict[str, str]:
    return {name: f"{value:.1f}" for name, value in numbers.items()}


def _points(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    if high > low:
        return low, high
    return low - (abs(low) / 10 or 1), high + (abs(high) / 10 or 1)


def _finite(one: Series, log_x: bool) -> Series:
    good = [
        index
        for index, (x, y) in enumerate(one.points)
        if math.isfinite(x) and math.isfinite(y) and (x > 0 or not log_x)
    ]
    errors = [_real(one.errors[index]) for index in good] if one.errors else None
    band = [one.band[index] for index in good] if one.band else None
    points = [one.points[index] for index in good]
    values = {**vars(one), "points": points, "errors": errors, "band": band}
    return Series(**values)


def _real(value: float) -> float:
    return value if math.isfinite(value) else 0.0
