"""What is read from a run's folder, also while it is written; claims; the attempts on disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ssod.study.sweep import state
from ssod.study.sweep.progress import Progress, progress


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
    assert progress(tmp_path, 9).attempts == 2


def test_half_a_result_is_none(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"status": "do')
    assert progress(tmp_path, 5).status is None and not state.is_done(tmp_path)
    (tmp_path / "result.json").write_text('{"status": "done"}')
    assert state.is_done(tmp_path)


def test_a_line_after_one_that_was_cut_off_is_a_line(tmp_path: Path) -> None:
    state.note(tmp_path, "start", "a")
    with (tmp_path / state.ATTEMPTS).open("a") as file:
        file.write('{"event": "end", "att')
    state.note(tmp_path, "start", "b")
    assert [line["attempt"] for line in state.attempts(tmp_path)] == ["a", "b"]


@pytest.mark.parametrize("content", ["null", "[1]", "{", ""])
def test_a_result_that_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "result.json").write_text(content)
    assert not state.is_done(tmp_path)
    assert progress(tmp_path, 5) == Progress()
