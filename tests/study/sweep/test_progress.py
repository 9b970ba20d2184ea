"""How far a run is, read from its folder also while it is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ssod.study.sweep.progress import TAIL, Progress, progress


def lines(path: Path, *records: dict[str, object]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(each) + "\n" for each in records))


def test_progress_of_a_run_at_work(tmp_path: Path) -> None:
    assert progress(tmp_path / "none", 100) == Progress()
    lines(
        tmp_path / "metrics.jsonl",
        {"kind": "train", "iteration": 10, "seconds_per_step": 3.0},
        {"kind": "val", "iteration": 20, "teacher/bbox_mAP": 0.5, "student/bbox_mAP": 0.4},
        {"kind": "train", "iteration": 30, "seconds_per_step": 2.0},
    )
    (tmp_path / "result.json").write_text('{"status": "running", "iterations": 20, "error": null}')
    (tmp_path / "train.log").touch()
    seen = progress(tmp_path, 100)
    assert (seen.status, seen.iteration, seen.ap, seen.eta) == ("running", 30, 0.5, 140.0)
    assert seen.log == tmp_path / "train.log" and seen.error == ""


def test_progress_of_stages_adds_up(tmp_path: Path) -> None:
    lines(
        tmp_path / "stage_1_teacher" / "metrics.jsonl",
        {"kind": "train", "iteration": 50, "seconds_per_step": 1.0},
        {"kind": "val", "iteration": 50, "student/bbox_mAP": 0.3},
    )
    lines(
        tmp_path / "stage_3_student" / "metrics.jsonl",
        {"kind": "train", "iteration": 20, "seconds_per_step": 2.0},
    )
    (tmp_path / "result.json").write_text('{"status": "running", "iterations": 50}')
    seen = progress(tmp_path, 100)
    assert (seen.iteration, seen.eta, seen.ap) == (70, 60.0, None)
    (tmp_path / "result.json").write_text('{"status": "done", "metrics": {"student": {"bbox_mAP": 0.6}}}')
    seen = progress(tmp_path, 100)
    assert (seen.iteration, seen.eta, seen.ap) == (100, None, 0.6)


def test_of_a_long_file_the_end_is_read(tmp_path: Path) -> None:
    records = [
        {"kind": "train", "iteration": n, "seconds_per_step": 0.5, "pad": "x" * 100} for n in range(5000)
    ]
    lines(tmp_path / "metrics.jsonl", *records)
    assert (tmp_path / "metrics.jsonl").stat().st_size > 4 * TAIL
    assert progress(tmp_path, 6000).iteration == 4999


@pytest.mark.parametrize("after", [0, 1])
def test_long_lines_at_the_end_are_passed_over(tmp_path: Path, after: int) -> None:
    """Telemetry of many classes is longer than the tail that is read first."""
    telemetry: dict[str, object] = {f"rpn/class {n}/precision_50": 0.5 for n in range(1, 9000)}
    lines(
        tmp_path / "metrics.jsonl",
        *({"kind": "train", "iteration": n, "seconds_per_step": 0.5} for n in range(90)),
        {"kind": "val", "iteration": 90, "teacher/bbox_mAP": 0.25},
        {"kind": "pseudo_labels", "iteration": 90, **telemetry},
        *[{"kind": "train", "iteration": 91, "seconds_per_step": 2.0}] * after,
    )
    assert (tmp_path / "metrics.jsonl").stat().st_size > 5 * TAIL
    seen = progress(tmp_path, 100)
    assert (seen.iteration, seen.ap, seen.eta) == (90 + after, 0.25, [5.0, 18.0][after])
