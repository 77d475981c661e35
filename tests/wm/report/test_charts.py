import math
import re
from xml.etree import ElementTree

import pytest

from wm.report.charts import Bar, Series, bars, histogram, lines, short


def numbers(chart, attribute):
    """The numbers of an attribute, all finite."""
    found = [float(x) for x in re.findall(rf'\b{attribute}="(-?[0-9.]+)"', chart)]
    assert found
    return found


def parsed(chart):
    assert "nan" not in chart
    assert "inf" not in chart
    return ElementTree.fromstring(chart)


def test_lines_lie_within_the_chart():
    one = Series("mine", [(1, 10.0), (2, 30.0), (3, 20.0)], errors=[1, 2, 3], dots=True)
    other = Series("theirs", [(1, 5.0), (3, 50.0)], "other", band=[(0, 9), (40, 60)])
    chart = lines([one, other], "step", "score", level=(25, "good"))
    tree = parsed(chart)
    assert all(0 <= x <= 420 for x in numbers(chart, "cx"))
    assert all(0 <= y <= 260 for y in numbers(chart, "cy"))
    assert len([node for node in tree.iter("circle") if node.find("title") is not None]) == 3
    assert "mine" in chart
    assert "good" in chart


def test_a_logarithmic_axis_spreads_decades_evenly():
    chart = lines([Series("s", [(1e4, 1.0), (1e6, 2.0), (1e8, 3.0)], dots=True)], "steps", "score", log_x=True)
    first, middle, last = numbers(chart, "cx")
    assert middle - first == pytest.approx(last - middle)
    assert "100k" in chart
    assert "10M" in chart


@pytest.mark.parametrize(("low", "high"), [(2.1e6, 2.9e6), (19.0e6, 19.2e6), (3e5, 4e6), (1.5, 40)])
def test_a_logarithmic_axis_over_a_narrow_range_has_ticks(low, high):
    chart = lines([Series("s", [(low, 1.0), (high, 2.0)])], "steps", "score", log_x=True)
    marks = re.findall(r'<text x="([0-9.]+)" y="237.0" text-anchor="middle">([^<]+)<', chart)
    assert 2 <= len(marks) <= 8, marks
    assert all(44 <= float(x) <= 410 for x, _ in marks)


def test_with_negative_values_a_better_row_is_further_right():
    chart = bars([Bar("worst", -93.0, "-93"), Bar("random", -60.0, "-60", 30.0), Bar("best", 900.0, "900")], "scores")
    worst, random, best = numbers(chart, "cx")
    assert worst < random < best
    assert "<rect" not in chart  # a bar from 0 to -93 would be longer than one to -60


def test_counts_have_whole_numbers_on_their_axis():
    chart = histogram([1.0, 2.0, 3.0], "score")
    assert not re.search(r'text-anchor="end">0\.\d', chart)


def test_an_axis_of_whole_numbers_has_no_fractions():
    marks = [
        {node.text for node in parsed(lines([Series("s", points, dots=True)], "x", "")).iter("text")}
        for points in ([(0, 1.0), (1, 1.5), (2, 1.2)], [(0, 1.0), (0.5, 1.5), (2, 1.2)])
    ]
    assert {"0", "1", "2"} < marks[0]
    assert not {"0.2", "0.4", "1.6"} & marks[0]
    assert {"0.4", "1.6"} < marks[1]


def test_non_finite_points_are_left_out():
    points = [(0, 1.0), (1, math.nan), (2, math.inf), (3, 2.0)]
    chart = lines([Series("s", points, errors=[math.nan, 1, 1, 1], dots=True)], "x", "y")
    parsed(chart)
    assert len(numbers(chart, "cx")) == 2
    assert len(numbers(lines([Series("s", [(0, 1.0), (10, 1.0)], dots=True)], "x", "y", log_x=True), "cx")) == 1


@pytest.mark.parametrize("points", [[], [(1, 5.0)], [(1, 5.0), (1, 5.0)], [(0, 0.0), (1, 0.0)]])
def test_few_points_are_enough(points):
    parsed(lines([Series("s", points, dots=True)], "x", "y"))


def test_bars_start_at_zero_and_names_are_escaped():
    chart = bars([Bar("<i>", 10.0, "10", 5), Bar("b", 100.0, "100", 20, 3, strong=True)], "about")
    boxes = list(parsed(chart).iter("rect"))
    left, right = ((float(b.get("x")), float(b.get("x")) + float(b.get("width"))) for b in boxes)
    assert left[0] == right[0] == 1
    assert right[1] > left[1]
    assert "<i>" not in chart


def test_a_long_name_leaves_room_for_its_number():
    chart = bars([Bar("--vision.steps 2000 " * 9, 811.0, "811 ± 52")], "about")
    name, number = (node.text for node in parsed(chart).iter("text"))
    assert name.startswith("--vision.steps 2000 --vision")
    assert len(name) + len(number) <= 62


def test_a_histogram_counts_each_value_once():
    values = [1.0, 2.0, 2.5, 9.9, 10.0, math.nan]
    tooltips = [node.find("title").text for node in parsed(histogram(values, "score", 5.0)).iter("rect")]
    assert sum(int(text.split()[0]) for text in tooltips) == 5
    parsed(histogram([3.0], "score"))
    assert "No numbers" in histogram([], "score")


def test_axes_have_short_numbers():
    assert [short(x) for x in (0, 0.25, 150, 9000, 2e4, 1.5e6, 1e9)] == [
        "0",
        "0.25",
        "150",
        "9000",
        "20k",
        "1.5M",
        "1G",
    ]
