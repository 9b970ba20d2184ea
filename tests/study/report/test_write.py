"""Where a report is written: over an earlier one, never over somebody's own file."""

from __future__ import annotations

from pathlib import Path

import pytest
from reference.report_runs import result, write_run

from ssod.errors import UserError
from ssod.study.report.tables import Report, make_report
from ssod.study.report.write import MARKS, write_report


def report_of(folder: Path, status: str) -> Report:
    record = result("FixMatch", 0, {"teacher": [40, 60, 40], "student": [39, 59, 39]}, status=status)
    write_run(folder / "run", record)
    return make_report([folder])


@pytest.mark.parametrize("status", ["done", "failed"])
def test_an_earlier_report_is_replaced(tmp_path: Path, status: str) -> None:
    """With and without a table in it."""
    report = report_of(tmp_path / "runs", status)
    written = write_report(report, tmp_path / "out")
    assert {path.name for path in written} == set(MARKS)
    before = [path.read_bytes() for path in written]
    written[0].write_text(written[0].read_text() + "an older one")
    assert [path.read_bytes() for path in write_report(report, tmp_path / "out")] == before


@pytest.mark.parametrize("name", MARKS)
def test_a_file_of_somebody_is_kept(tmp_path: Path, name: str) -> None:
    report = report_of(tmp_path / "runs", "done")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("run,accuracy\nmine,1\n")
    with pytest.raises(UserError, match=f"{name} is no report that this tool wrote: move it away"):
        write_report(report, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [name]
    assert (tmp_path / "out" / name).read_text() == "run,accuracy\nmine,1\n"
