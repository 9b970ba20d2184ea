"""result.json and metrics.jsonl: whole files, and plain numbers."""

import errno
import fcntl
import json
import math
import multiprocessing
import os
import time
from pathlib import Path

import pytest

from ssod.engine.records.result import MetricsFile, lock, write_json
from ssod.errors import UserError


def test_numbers_that_are_not_finite_become_null(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": math.nan, "b": [math.inf, 1.5], "c": {"d": (-math.inf,)}})
    assert json.loads(path.read_text()) == {"a": None, "b": [None, 1.5], "c": {"d": [None]}}
    assert [each.name for each in tmp_path.iterdir()] == ["a.json"]


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}


def test_rewind_drops_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path)
    metrics.rewind(0, 0)
    assert metrics.records() == [] and not metrics.path.exists()
    for iteration in (2, 4, 6):
        metrics.append("train", iteration, {"loss": 1.0})
        metrics.append("pseudo_labels", iteration, {"precision_50": 0.5})
        metrics.append("val", iteration, {"teacher/bbox_mAP": 0.1})
    with metrics.path.open("a") as file:
        file.write('{"kind": "tra')  # the process was killed here
    metrics.rewind(4, 2)
    kept = [(each["kind"], each["iteration"]) for each in metrics.records()]
    assert kept == [("train", 2), ("pseudo_labels", 2), ("val", 2), ("train", 4)]


def test_two_runs_cannot_write_to_one_work_dir(tmp_path: Path) -> None:
    held = lock(tmp_path / "run")
    with pytest.raises(UserError, match="another run is writing"):
        lock(tmp_path / "run")
    held.close()
    lock(tmp_path / "run").close()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_where_no_file_can_be_locked_a_run_goes_on(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lustre mounted without flock, for one; nobody else is writing there."""

    def refuse(file: object, kind: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    lock(tmp_path / "run").close()


def test_a_loader_worker_does_not_hold_the_lock(tmp_path: Path) -> None:
    """A fork has every open file of its parent, and may outlive it: here the parent lets go first."""
    held = lock(tmp_path / "run")
    context = multiprocessing.get_context("fork")
    begun = context.Event()
    worker = context.Process(target=lambda: (begun.set(), time.sleep(60)))
    worker.start()
    try:
        assert begun.wait(30)
        held.close()
        lock(tmp_path / "run").close()
    finally:
        worker.kill()
        worker.join()
