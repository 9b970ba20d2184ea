"""What LaTeX would take for something else, and that the notes of a section stand before its table."""

from __future__ import annotations

from pathlib import Path

import pytest
from reference.report_runs import result, write_run

from ssod.study.report.latex import write
from ssod.study.report.tables import make_report

AP = {"teacher": [40.0, 60.0, 42.0]}


@pytest.mark.parametrize("sign", ["[", "*"])
def test_no_label_is_taken_for_what_a_line_break_may_have(tmp_path: Path, sign: str) -> None:
    for place, name in enumerate(("a", f"{sign}b]", f"{sign}c]")):
        axes = {"method": name}
        write_run(tmp_path / f"{place}", result("FixMatch", 0, AP), place={"sweep": "x", "axes": axes})
    text = write(make_report([tmp_path]))
    assert f"\n{{}}{sign}b] & 1" in text and f"\n{{}}{sign}c] & 1" in text
    assert "\\\\\n[" not in text and "\\\\\n*" not in text


def test_notes_are_comments_of_one_line(tmp_path: Path) -> None:
    place = {"sweep": "x", "axes": {"method": "two\nlines"}}
    write_run(tmp_path / "a", result("FixMatch", 0, AP), place=place)
    write_run(tmp_path / "b", result("STAC", 0, AP, test__score_thr=0.001))
    before, _, _ = write(make_report([tmp_path])).partition("\\begin{table}")
    assert before.splitlines()[3:] == [
        "% two lines: no supervised twin, so no Δ.",
        "% STAC: no supervised twin, so no Δ.",
        "% Rows were tested with different score thresholds, so their AP can't be compared: 0.05, 0.001.",
    ]
