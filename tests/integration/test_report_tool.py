"""tools/report.py as it is typed: what it writes and prints, and its refusals."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from reference.modules import load_tool
from reference.report_runs import hostile, result, write_run

PROJECT = Path(__file__).resolve().parents[2]
AP = {"teacher": [40.0, 60.0, 42.0]}


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    module: ModuleType = load_tool("report")
    return module


def test_all_formats_are_written(tool: ModuleType, tmp_path: Path, capsys: Any) -> None:
    hostile(tmp_path / "runs")
    assert tool.main([str(tmp_path / "runs"), "--out", str(tmp_path / "a" / "out")]) == 0
    files = sorted(path.name for path in (tmp_path / "a" / "out").iterdir())
    assert files == ["differences.csv", "report.csv", "report.html", "report.md", "report.tex", "runs.csv"]
    printed = capsys.readouterr()
    assert printed.out.startswith("9 runs in 2 tables, 1 not done and listed apart\nfiles: ")
    assert printed.err == ""


def test_a_format_a_title_and_sizes_can_be_chosen(tool: ModuleType, tmp_path: Path) -> None:
    record = result("FixMatch", 0, AP, metrics__teacher={"bbox_mAP": 0.4, "bbox_mAP_s": 0.125})
    write_run(tmp_path / "run", record)
    words = [str(tmp_path / "run"), "--out", str(tmp_path), "--formats", "md", "--title", "Mine", "--sizes"]
    assert tool.main(words) == 0
    text = (tmp_path / "report.md").read_text()
    assert text.startswith("# Mine\n") and "teacher APs" in text and "| 12.5 |" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.md", "run"]


def broken(folder: Path) -> None:
    write_run(folder / "runs/a", result("FixMatch", 0, AP))
    (folder / "runs/a/result.json").write_text("{")


def mixed(folder: Path) -> None:
    write_run(folder / "runs/a", result("FixMatch", 0, AP))
    write_run(folder / "runs/b", result("FixMatch", 1, AP, test__score_thr=0.001))


def blocked(folder: Path) -> None:
    write_run(folder / "runs/a", result("FixMatch", 0, AP))
    (folder / "out").write_text("a file")


def nothing(folder: Path) -> None:
    (folder / "runs").mkdir()


REFUSED = [
    (broken, "runs/a/result.json is broken"),
    (mixed, 'row "FixMatch" mixes test score thresholds: 0.05 (a) and 0.001 (b)'),
    (blocked, "cannot write to"),
    (nothing, "no result.json of a run in"),
    (lambda folder: None, "is no folder"),
]


@pytest.mark.parametrize(("make", "says"), REFUSED, ids=[row[1][:20] for row in REFUSED])
def test_bad_input_is_one_line_and_exit_code_2(
    tool: ModuleType, tmp_path: Path, capsys: Any, make: Any, says: str
) -> None:
    make(tmp_path)
    assert tool.main([str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("error: ") and printed.err.count("\n") == 1
    assert says in printed.err
    assert not (tmp_path / "out").is_dir()


def test_unfinished_runs_alone_are_listed(tool: ModuleType, tmp_path: Path) -> None:
    write_run(tmp_path / "run", result("FixMatch", 0, AP, status="stopped"))
    assert tool.main([str(tmp_path / "run"), "--out", str(tmp_path / "out")]) == 0
    assert "| run | stopped | FixMatch | 1800 | – |" in (tmp_path / "out/report.md").read_text()
