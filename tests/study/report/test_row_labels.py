"""Labels of a section are unique, whatever its rows differ in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reference.report_runs import result, write_run

from ssod.study.report.rows import make_rows
from ssod.study.results import find_runs

AP = {"teacher": [40.0, 60.0, 42.0]}


def labels(folder: Path) -> dict[str, str]:
    """{label: the name of the row's first run}"""
    return {row.label: row.first.name for row in make_rows(find_runs([folder]))}


def write(folder: Path, sweep: str, text: str | None = None, **axes: Any) -> None:
    place = {"sweep": sweep, "axes": {"method": "fixmatch", **axes}} if sweep else None
    write_run(folder, result("FixMatch", 0, AP, config="x/same.py"), method=text, place=place)


def test_all_axes_of_a_sweep_are_named(tmp_path: Path) -> None:
    """Four axes of which the last alone tells two rows apart."""
    for first, last in ((1, 1), (1, 2), (2, 1)):
        write(tmp_path / f"{first}{last}", "x", a=first, b=first, c=first, d=last)
    assert labels(tmp_path) == {
        "FixMatch, a=1, b=1, c=1, d=1": "11",
        "FixMatch, a=1, b=1, c=1, d=2": "12",
        "FixMatch, a=2, b=2, c=2, d=1": "21",
    }


def test_equal_rows_of_two_sweeps_have_their_sweeps_once(tmp_path: Path) -> None:
    for sweep, value in (("one", 1), ("two", 1), ("two", 2)):
        write(tmp_path / f"{sweep}{value}", sweep, a=value)
    assert labels(tmp_path) == {
        "FixMatch, a=1 (one)": "one1",
        "FixMatch, a=1 (two)": "two1",
        "FixMatch, a=2": "two2",
    }


def test_where_sweeps_say_nothing_runs_do(tmp_path: Path) -> None:
    """percent is an axis that labels leave to the section; 10 and 10.0 are two rows of one sweep."""
    write(tmp_path / "a", "x", percent=10)
    write(tmp_path / "b", "x", percent=10.0)
    write(tmp_path / "c", "y", percent=10)
    assert labels(tmp_path) == {"FixMatch (a)": "a", "FixMatch (b)": "b", "FixMatch (c)": "c"}


def test_options_that_a_label_leaves_out_make_no_equal_labels(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        rest = min(number, 2)
        write(
            tmp_path / f"run{number}", "", f"dict(type='FixMatch', a={rest}, b={rest}, c={rest}, d={number})"
        )
    assert list(labels(tmp_path)) == [
        "FixMatch, a=1, b=1, c=1, 1 more options",
        "FixMatch, a=2, b=2, c=2, 1 more options (run2)",
        "FixMatch, a=2, b=2, c=2, 1 more options (run3)",
    ]
