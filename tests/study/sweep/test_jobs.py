"""What a job's further processes do: which of them they are, and how long they wait for the first."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from ssod.engine.processes import choose_launcher
from ssod.study.sweep import jobs, state
from ssod.study.sweep.jobs import Job


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, 0),
        ({"SUBMITIT_EXECUTOR": "slurm", "SLURM_PROCID": "3"}, 3),
        ({"SUBMITIT_EXECUTOR": "local", "SUBMITIT_LOCAL_GLOBALID": "1"}, 1),
        ({"SUBMITIT_EXECUTOR": "local", "SUBMITIT_LOCAL_GLOBALID": "1", "SLURM_PROCID": "0"}, 1),
        ({"SUBMITIT_EXECUTOR": "local", "SUBMITIT_LOCAL_GLOBALID": "0", "SLURM_PROCID": "3"}, 0),
    ],
)
def test_a_local_job_within_a_slurm_job_goes_by_its_own_number(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: int
) -> None:
    for name in ("SUBMITIT_EXECUTOR", "SUBMITIT_LOCAL_GLOBALID", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert jobs._rank() == expected


@pytest.mark.parametrize(
    ("step", "launcher"),
    [
        ({"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3"}, "slurm"),
        ({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}, "pytorch"),
    ],
)
@pytest.mark.parametrize("executor", ["local", "slurm"])
def test_a_local_job_is_none_of_the_processes_that_its_sweep_was_started_with(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, step: dict[str, str], launcher: str, executor: str
) -> None:
    """A job of SLURM's own is."""
    seen: list[str] = []
    with monkeypatch.context() as patch:
        for name, value in {**step, "SUBMITIT_EXECUTOR": executor}.items():
            patch.setenv(name, value)
        for name in ("OMP_WAIT_POLICY", "OMP_NUM_THREADS"):
            patch.setenv(name, os.environ.get(name, "1"))
        patch.setattr(os, "setsid", lambda: None)
        patch.setattr(jobs, "_listen", lambda job: None)
        patch.setattr(jobs, "run", lambda job, listen: seen.append(choose_launcher()) or "done")
        jobs.in_own_process(Job(str(tmp_path), "config.py", "one"))
    assert seen == ["none" if executor == "local" else launcher]


def test_a_first_process_that_says_nothing_is_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The words of another attempt don't count; the first process's own do."""
    monkeypatch.setattr(jobs, "FIRST_WORD", 0.05)
    monkeypatch.setattr(jobs, "LOOK_EVERY", 0.01)
    state.note(tmp_path, "start", "earlier")
    began = time.monotonic()
    assert jobs._without_us(Job(str(tmp_path), "config.py", "one")) == "failed"
    assert 0.05 <= time.monotonic() - began < 5
    assert f"written nothing to {tmp_path}/attempts.jsonl in 0.05 s" in capsys.readouterr().err
    state.note(tmp_path, "start", "two")
    assert jobs._without_us(Job(str(tmp_path), "config.py", "two")) is None
    state.note(tmp_path, "end", "three", status="held")
    assert jobs._without_us(Job(str(tmp_path), "config.py", "three")) == "held"
