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


def test_a_report_with_fewer_columns_is_replaced(tmp_path: Path) -> None:
    """What versions before wrote had neither labeled_file nor tested_file."""
    (tmp_path / "report.csv").write_text("section,dataset,protocol,percent,row,network,metric,n\n")
    (tmp_path / "differences.csv").write_text("section,dataset,protocol,percent,row,less,network\n")
    write_report(report_of(tmp_path / "runs", "done"), tmp_path, ["csv"])
    for name in ("report.csv", "differences.csv"):
        assert (tmp_path / name).read_text().startswith("section,dataset,protocol,percent,labeled_file,")


def test_a_page_alone_has_the_file_that_it_refers_to(tmp_path: Path) -> None:
    """14 rows are too many for its table of rows against each other."""
    for place in range(14):
        record = result("FixMatch", 0, {"teacher": [40 + place, 60, 40]})
        write_run(tmp_path / f"runs/{place}", record, place={"sweep": "x", "axes": {"a": place}})
    written = write_report(make_report([tmp_path / "runs"]), tmp_path / "out", ["html"])
    assert [path.name for path in written] == ["report.html", "differences.csv"]
    assert "differences.csv compares the rows" in written[0].read_text()
    assert len(written[1].read_text().splitlines()) == 1 + 14 * 13
    few = make_report([tmp_path / f"runs/{place}" for place in range(2)])
    assert [path.name for path in write_report(few, tmp_path / "few", ["html"])] == ["report.html"]


@pytest.mark.parametrize("name", MARKS)
def test_a_file_of_somebody_is_kept(tmp_path: Path, name: str) -> None:
    report = report_of(tmp_path / "runs", "done")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("run,accuracy\nmine,1\n")
    with pytest.raises(UserError, match=f"{name} is no report that this tool wrote: move it away"):
        write_report(report, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [name]
    assert (tmp_path / "out" / name).read_text() == "run,accuracy\nmine,1\n"
