"""What a sweep says where nobody watches: every run's name, state, place and AP, whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from ssod.study.sweep.progress import Progress
from ssod.study.sweep.table import Board, Row


def test_the_last_table_is_whole_without_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    name = "soft_teacher_no_jitter-p10-f1-s0-be822e93"
    done = Progress(status="done", iteration=600, ap=0.4321, attempts=2, log=tmp_path / name / "train.log")
    failed = Progress(status="failed", iteration=7, error="RunError: the disk is full", attempts=1)
    rows = [
        Row(name, 600, tmp_path / name, "done", done),
        Row("supervised-s0-1", 600, tmp_path / "supervised-s0-1", "failed", failed),
        Row("fixmatch-s0-2", 1200, tmp_path / "fixmatch-s0-2"),
    ]
    Board("toys", rows, tmp_path).final()
    said = capsys.readouterr().out
    lines = [line for line in said.splitlines() if "│" in line]
    cells = [[cell.strip() for cell in line.split("│") if cell.strip()] for line in lines]
    assert cells == [
        [name, "done", "600/600", "43.2", "2", "train.log"],
        ["supervised-s0-1", "failed", "7/600", "1"],
        ["fixmatch-s0-2", "waiting", "0/1200"],
    ]
    assert "1 done, 1 failed, 1 waiting" in said
    assert "failed: supervised-s0-1: RunError: the disk is full" in said


def test_brackets_of_a_name_are_no_markup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Board("a[/b] c[red]", [], tmp_path / "[old]").final()
    assert "a[/b] c[red]: ; in" in (said := capsys.readouterr().out) and "[old]" in said
