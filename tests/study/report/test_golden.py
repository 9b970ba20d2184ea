"""The whole report of a small, hostile study, as it was written before: Markdown, LaTeX and CSV.

These write the files anew; look at what changed:

    python tests/reference/report_runs.py hostile RUNS
    python tools/report.py RUNS --title "A study & more" --out tests/study/report/golden --formats md tex csv
"""

from __future__ import annotations

from pathlib import Path

import pytest
from reference.report_runs import hostile

from ssod.study.report.tables import make_report
from ssod.study.report.write import write_report

GOLDEN = Path(__file__).parent / "golden"
FILES = ("report.md", "report.tex", "report.csv", "differences.csv", "runs.csv")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    write_report(make_report([hostile(folder / "runs")], title="A study & more"), folder / "out")
    return folder / "out"


@pytest.mark.parametrize("name", FILES)
def test_the_report_is_as_it_was(written: Path, name: str) -> None:
    assert (written / name).read_text() == (GOLDEN / name).read_text()


def line_of(start: str) -> str:
    """The first line of the Markdown that begins so: that of the section's table."""
    lines = (GOLDEN / "report.md").read_text().splitlines()
    return next(each for each in lines if each.startswith(start))


def test_the_golden_markdown_has_what_was_worked_out_by_hand() -> None:
    """test_statistics.py: 45 ± 3, a gain of 3 between 0.516 and 5.484."""
    line = line_of("| Soft Teacher | 3 |")
    assert "45.0 ± 3.0" in line and "+3.0 \\[+0.5, +5.5\\]" in line


def test_one_pair_has_no_interval_and_says_so() -> None:
    line = line_of("| STAC | 1 |")
    assert "| 44.0 |" in line and "+4.0 (one pair, no interval)" in line


@pytest.mark.parametrize("name", ["report.md", "report.tex"])
def test_nothing_from_a_file_is_markup(name: str) -> None:
    text = (GOLDEN / name).read_text()
    assert "<script" not in text and "<i>" not in text and "<img" not in text
    escaped = {
        "report.md": r"&lt;i&gt;\_50%\|\$x\$",
        "report.tex": r"\textless{}i\textgreater{}\_50\%\textbar{}\$x\$",
    }
    assert escaped[name] in text
