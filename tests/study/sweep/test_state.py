"""What is read from a run's folder, also while it is written; claims; the attempts on disk."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ssod.study.sweep import state


def test_a_claim_keeps_others_out_and_ends_with_the_block(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert not state.is_claimed(folder)
    with state.claimed(folder) as ours:
        assert ours and state.is_claimed(folder)
        with state.claimed(folder, patience=0.1) as theirs:
            assert not theirs
        assert state.is_claimed(folder), "a refused claim has freed the run"
    assert not state.is_claimed(folder)
    with state.claimed(folder) as again:
        assert again


def test_a_child_does_not_hold_the_claim(tmp_path: Path) -> None:
    """As a loader worker that outlives its job by seconds."""
    (waits, lets_go), (hears, says) = os.pipe(), os.pipe()
    with state.claimed(tmp_path):
        child = os.fork()
        if child == 0:
            os.close(lets_go)
            os.write(says, b".")
            os.read(waits, 1)  # until the parent has closed its end
            os._exit(0)
        os.read(hears, 1)
    assert not state.is_claimed(tmp_path)
    os.close(lets_go)
    assert os.waitpid(child, 0)[1] == 0
    for end in (waits, hears, says):
        os.close(end)


def test_attempts_and_how_they_ended(tmp_path: Path) -> None:
    state.note(tmp_path, "start", "one")
    state.note(tmp_path, "start", "two")
    state.note(tmp_path, "end", "two", status="failed", error="why")
    with (tmp_path / state.ATTEMPTS).open("a") as file:
        file.write('{"event": "end", "att')  # a kill in the middle of a line
    assert [each["attempt"] for each in state.attempts(tmp_path)] == ["one", "two", "two"]
    assert state.ending(tmp_path, "one")["status"] == "killed"
    assert (state.ending(tmp_path, "two")["status"], state.ending(tmp_path, "two")["error"]) == (
        "failed",
        "why",
    )
    assert state.has_begun(tmp_path, "one") and not state.has_begun(tmp_path, "three")
    assert state.progress(tmp_path, 9).attempts == 2


def lines(path: Path, *records: dict[str, object]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(each) + "\n" for each in records))


def test_progress_of_a_run_at_work(tmp_path: Path) -> None:
    assert state.progress(tmp_path / "none", 100) == state.Progress()
    lines(
        tmp_path / "metrics.jsonl",
        {"kind": "train", "iteration": 10, "seconds_per_step": 3.0},
        {"kind": "val", "iteration": 20, "teacher/bbox_mAP": 0.5, "student/bbox_mAP": 0.4},
        {"kind": "train", "iteration": 30, "seconds_per_step": 2.0},
    )
    (tmp_path / "result.json").write_text('{"status": "running", "iterations": 20, "error": null}')
    (tmp_path / "train.log").touch()
    seen = state.progress(tmp_path, 100)
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
    seen = state.progress(tmp_path, 100)
    assert (seen.iteration, seen.eta, seen.ap) == (70, 60.0, None)
    (tmp_path / "result.json").write_text('{"status": "done", "metrics": {"student": {"bbox_mAP": 0.6}}}')
    seen = state.progress(tmp_path, 100)
    assert (seen.iteration, seen.eta, seen.ap) == (100, None, 0.6)


def test_of_a_long_file_the_end_is_read(tmp_path: Path) -> None:
    records = [
        {"kind": "train", "iteration": n, "seconds_per_step": 0.5, "pad": "x" * 100} for n in range(5000)
    ]
    lines(tmp_path / "metrics.jsonl", *records)
    assert (tmp_path / "metrics.jsonl").stat().st_size > 4 * state.TAIL
    assert state.progress(tmp_path, 6000).iteration == 4999


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
    assert (tmp_path / "metrics.jsonl").stat().st_size > 5 * state.TAIL
    seen = state.progress(tmp_path, 100)
    assert (seen.iteration, seen.ap, seen.eta) == (90 + after, 0.25, [5.0, 18.0][after])


def test_half_a_result_is_none(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"status": "do')
    assert state.progress(tmp_path, 5).status is None and not state.is_done(tmp_path)
    (tmp_path / "result.json").write_text('{"status": "done"}')
    assert state.is_done(tmp_path)
