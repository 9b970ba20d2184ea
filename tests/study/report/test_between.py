"""Rows against each other: which runs pair up, which network is compared, and what is shown of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from reference.report_runs import digest, result, write_run

from ssod.study.report import between, cells, frames, markdown, page_tables
from ssod.study.report.between import Between, compare
from ssod.study.report.statistics import paired_gain
from ssod.study.report.tables import Report, make_report

# Three seeds. One method's AP is 42, 45, 48, another's 40, 41, 45: test_statistics.py works their gain out.
FIX, MEAN = (42.0, 45.0, 48.0), (40.0, 41.0, 45.0)


def write(folder: Path, method: str, seed: int, teacher: float | None, student: float, **more: Any) -> None:
    networks = {"student": [student, 60, 40]} | ({} if teacher is None else {"teacher": [teacher, 60, 40]})
    write_run(
        folder / f"{method}-{seed}-{len(list(folder.iterdir()))}", result(method, seed, networks, **more)
    )


def three_seeds(folder: Path) -> Report:
    folder.mkdir(exist_ok=True)
    for seed in range(3):
        write(folder, "supervised", seed, 30 + seed, 30)
        write(folder, "FixMatch", seed, FIX[seed], 20 + seed)
        write(folder, "MeanTeacher", seed, MEAN[seed], 10)
    return make_report([folder], title="Three")


def named(found: Between | None) -> dict[tuple[str, str], Any]:
    assert found is not None
    labels = {place: line.row.label for place, line in found.lines.items()}
    return {
        (labels[one], labels[two]): (found.networks[one, two], gain.differences)
        for (one, two), gain in found.gains.items()
    }


def test_each_row_but_the_twins_is_compared_with_each_other(tmp_path: Path) -> None:
    (table,) = three_seeds(tmp_path / "runs").tables
    assert named(compare(table)) == {
        ("FixMatch", "Mean Teacher"): ("teacher", (2.0, 4.0, 3.0)),
        ("Mean Teacher", "FixMatch"): ("teacher", (-2.0, -4.0, -3.0)),
    }


def test_students_are_compared_where_one_row_has_no_teacher(tmp_path: Path) -> None:
    three_seeds(tmp_path)
    write(tmp_path, "STAC", 1, None, 25)
    (table,) = make_report([tmp_path]).tables
    found = named(compare(table))
    assert found["STAC", "FixMatch"] == ("student", (4.0,))
    assert found["FixMatch", "STAC"] == ("student", (-4.0,))
    assert found["FixMatch", "Mean Teacher"][0] == "teacher"


@pytest.mark.parametrize(
    "change",
    [
        {"iterations": 3600},
        {"seed": 5},
        {"split__ids_sha256": digest("other")},
        {"test__score_thr": 0.001},
    ],
)
def test_what_differs_in_one_of_these_is_no_pair(tmp_path: Path, change: dict[str, Any]) -> None:
    write(tmp_path, "FixMatch", 0, 42, 41)
    write(tmp_path, "MeanTeacher", teacher=40, student=39, **{"seed": 0, **change})
    assert [compare(table) for table in make_report([tmp_path]).tables] == [None]


def test_an_interval_without_zero_is_bold_and_says_how_many_pairs(tmp_path: Path) -> None:
    """Seed 3 of one method alone: three pairs of four runs. 0.516 to 5.484, as test_statistics.py has it."""
    three_seeds(tmp_path)
    write(tmp_path, "FixMatch", 3, 90, 90)
    report = make_report([tmp_path])
    text = markdown.write(report)
    assert "| row less column | Mean Teacher | FixMatch |" in text
    assert r"| FixMatch | **+3.0 \[+0.5, +5.5\], 3 pairs** |  |" in text
    assert r"| Mean Teacher |  | **−3.0 \[−5.5, −0.5\]** |" in text
    html = page_tables.between(report.tables[0], 0)
    assert '<b>+3.0<span class="about">[+0.5, +5.5], 3 pairs</span></b>' in html
    assert len(re.findall("<b>", html)) == 2
    frame = frames.differences(report)
    line = frame[frame["row"] == "FixMatch"].iloc[0]
    assert line["less"] == "Mean Teacher" and line["network"] == "teacher" and line["pairs"] == 3
    assert line[["difference", "low", "high"]].tolist() == pytest.approx([3.0, 0.516, 5.484], abs=5e-4)


@pytest.mark.parametrize(
    ("differences", "expected"), [((2.0, 4.0, 3.0), True), ((-2.0, 4.0, 3.0), False), ((5.0,), False)]
)
def test_one_pair_tells_nothing_from_zero(differences: tuple[float, ...], expected: bool) -> None:
    gain = paired_gain(differences)
    assert gain is not None and cells.is_told_from_zero(gain) is expected


def test_too_many_rows_stand_in_the_csv_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = three_seeds(tmp_path)
    monkeypatch.setattr(between, "MOST", 1)
    assert "differences.csv compares the rows" in page_tables.between(report.tables[0], 0)
    assert "| row less column |" not in markdown.write(report)
    assert len(frames.differences(report)) == 2


def test_without_pairs_there_is_a_header_alone(tmp_path: Path) -> None:
    write(tmp_path, "FixMatch", 0, 42, 41)
    report = make_report([tmp_path])
    assert page_tables.between(report.tables[0], 0) == ""
    assert frames.to_csv(frames.differences(report)).splitlines() == [
        "section,dataset,protocol,percent,labeled_file,tested_file,row,less,network,pairs,difference,low,high"
    ]
