"""Where marks stand in the charts, and what the curves of a row are."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from html import unescape
from pathlib import Path

import pytest
from reference.report_runs import result, write_run

from ssod.study.report import charts, page_tables
from ssod.study.report.charts import Series, gain_axis, gain_strip, line_chart, ticks
from ssod.study.report.curves import average, style_of
from ssod.study.report.tables import make_report


@pytest.mark.parametrize(
    ("low", "high", "most", "expected"),
    [
        (0, 50, 5, [0, 10, 20, 30, 40, 50]),
        (0, 43, 5, [0, 10, 20, 30, 40, 50]),
        (-1.3, 10, 4, [-5, 0, 5, 10]),
        (0.66, 0.81, 5, [0.65, 0.7, 0.75, 0.8, 0.85]),
        (0, 0, 5, [0, 0.2]),
        (7, 7, 5, [6, 8]),
        (0, 180000, 4, [0, 50000, 100000, 150000, 200000]),
        (0.8, 0.8 + 1e-12, 5, [0.8, 1.0]),  # as if they were equal
        (-1e-12, 0, 8, [0, 0.2]),
        (1e15 - 0.125, 1e15, 5, [1e15, 1.2e15]),
    ],
)
def test_ticks_are_round_and_hold_the_values(
    low: float, high: float, most: int, expected: list[float]
) -> None:
    assert ticks(low, high, most) == pytest.approx(expected)


def test_points_stand_where_their_values_are() -> None:
    """Across 0 to 200 iterations, up 0 to 10: the middle of both is the middle of the field."""
    series = [Series("a & b", ((0, 0.0), (100, 5.0), (200, 10.0)), "teacher")]
    root = ElementTree.fromstring(line_chart(series, "what <it> shows", (0, 10)))
    (line,) = (each for each in root.iter("polyline"))
    points = [tuple(map(float, each.split(","))) for each in line.attrib["points"].split()]
    left, right = charts.LEFT, charts.WIDTH - charts.RIGHT
    top, bottom = charts.TOP, charts.HEIGHT - charts.BOTTOM
    assert points == [(left, bottom), ((left + right) / 2, (top + bottom) / 2), (right, top)]
    assert root.attrib["aria-label"] == "what <it> shows"
    hover = json.loads(root.attrib["data-hover"])
    assert hover["series"][0] == {
        "name": "a & b",
        "style": "teacher",
        "points": [[0, 0], [100, 5], [200, 10]],
    }
    assert hover["left"] + 100 * hover["scale"] == pytest.approx(points[1][0], abs=0.01)


def test_single_runs_are_drawn_faintly_behind_and_not_named() -> None:
    series = [Series("mean", ((0, 1.0), (1, 2.0)), "a"), Series("run", ((0, 1.0), (1, 2.0)), "a", faint=True)]
    text = line_chart(series, "", (0, 2))
    assert text.index("faint") < text.index('class="line a"')
    assert "run" not in unescape(re.search('data-hover="([^"]*)"', text)[1])  # type: ignore[index]


def test_a_single_validation_is_a_dot() -> None:
    root = ElementTree.fromstring(line_chart([Series("a", ((3, 4.0),), "a")], "", (0, 4)))
    assert not list(root.iter("polyline")) and len(list(root.iter("circle"))) == 1


def test_a_strip_shows_each_pair_the_mean_and_the_interval() -> None:
    """On a scale from -5 to 5 zero is in the middle, 75 px."""
    root = ElementTree.fromstring(gain_strip([0.0, 5.0], -9.0, 5.0, 2.5, (-5, 5)))
    marks = {each.attrib["class"]: each.attrib for each in root}
    assert marks["zero"]["x1"] == "75.0"
    assert [each.attrib["cx"] for each in root.iter("circle")] == ["75.0", "144.0"]
    assert (marks["interval"]["x1"], marks["interval"]["x2"]) == ("6.0", "144.0")  # cut at the scale's end
    assert marks["mean"]["x1"] == "109.5"


def test_what_differs_by_rounding_alone_is_drawn() -> None:
    series = [Series("a", ((1, 0.8), (2, 0.8 + 1e-12)), "a")]
    root = ElementTree.fromstring(line_chart(series, "", (0.8, 0.8 + 1e-12)))
    (line,) = root.iter("polyline")
    bottom = f"{charts.HEIGHT - charts.BOTTOM:.1f}"
    assert [each.split(",")[1] for each in line.attrib["points"].split()] == [bottom, bottom]


def test_gains_of_rounding_alone_are_drawn_at_zero(tmp_path: Path) -> None:
    """A gain of 1e-12 per cent with its twin."""
    for method, ap in (("supervised", 40.0), ("FixMatch", 40.0 + 1e-12)):
        write_run(tmp_path / method, result(method, 0, {"teacher": [ap, 60.0, 42.0]}))
    (table,) = make_report([tmp_path]).tables
    html = page_tables.results(table, ("AP",), 0)
    (dot,) = re.findall('class="pair" cx="([^"]*)"', html)
    assert dot == "6.0" and ">+0.2</text>" in html  # at the left end of a scale from 0 to 0.2


def test_one_pair_has_no_bar() -> None:
    assert "interval" not in gain_strip([1.0], None, None, 1.0, (0, 5))


def test_the_scale_names_its_ends_and_zero_once() -> None:
    assert re.findall(">([^<>]+)</text>", gain_axis((-5, 10))) == ["−5", "0", "+10"]
    assert re.findall(">([^<>]+)</text>", gain_axis((0, 10))) == ["0", "+10"]
    assert re.findall(">([^<>]+)</text>", gain_axis((-1, 10))) == ["0", "+10"]  # −1 would touch the zero


def test_a_mean_is_taken_where_all_runs_were_tested() -> None:
    assert average([[(1, 10.0), (2, 20.0), (3, 5.0)], [(1, 20.0), (3, 15.0)]]) == [(1, 15.0), (3, 10.0)]
    assert average([[(1, 1.0)], []]) == [(1, 1.0)] and average([]) == []


def test_more_rows_than_colours_are_told_by_dashes() -> None:
    assert [style_of(place) for place in (0, 7, 8, 17)] == ["c0", "c7", "c0 dash1", "c1 dash2"]
