"""A sweep killed ten times, itself, a run of it or all its processes, ends as one that nobody killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from reference.killed_runs import differences, state_of
from reference.toy_sweep import write_sweep

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).resolve().parents[2]
ITERATIONS = 60
CONFIG = f"train_cfg = dict(max_iters={ITERATIONS}, val_interval=20)\n"
NAMES = ("toy-rate_0.1", "toy-rate_0.2", "toy-rate_0.3")


def start(sweep: Path, work_dir: Path, seconds: float) -> subprocess.Popen[bytes]:
    """The command, at work; it prints to `<work_dir>.log`."""
    environment = {**os.environ, "TOY_SECONDS": str(seconds), "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(map(str, (PROJECT, PROJECT / "tests")))
    command = [sys.executable, "tools/sweep.py", sweep, "--work-dir", work_dir, "--max-parallel", "3"]
    with open(f"{work_dir}.log", "a") as log:
        return subprocess.Popen(
            list(map(str, command)), cwd=PROJECT, env=environment, stdout=log, stderr=subprocess.STDOUT
        )


def finish(sweep: Path, work_dir: Path, seconds: float = 0.0) -> None:
    code = start(sweep, work_dir, seconds).wait(600)
    assert code == 0, Path(f"{work_dir}.log").read_text()[-3000:]


def ours(work_dir: Path) -> dict[int, str]:
    """The processes whose command line names the work dir: the sweep, submitit's and the runs'."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if any(word == str(work_dir) or word.startswith(f"{work_dir}/") for word in words):
            found[int(path.parent.name)] = " ".join(words)
    return found


def kill(pids: list[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def lines(folder: Path, event: str | None = None) -> list[dict[str, Any]]:
    path = folder / "attempts.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [each for each in records if event in (None, each["event"])]


def begun(work_dir: Path) -> int:
    return sum(len(lines(folder, "start")) for folder in work_dir.glob("toy-*"))


def test_ten_kills(tmp_path: Path) -> None:
    rates = 'axes = dict(method=["toy"], rate=[0.1, 0.2, 0.3])\n'
    sweep, whole, parts = write_sweep(tmp_path, rates, CONFIG), tmp_path / "whole", tmp_path / "parts"
    finish(sweep, whole)
    draw = random.Random(0)
    kinds = ["sweep", "run", "tree"] * 3 + ["tree"]
    draw.shuffle(kinds)
    for number, kind in enumerate(kinds):
        before, process = begun(parts), start(sweep, parts, seconds=0.4)
        if number % 4:  # else at any moment, also before there is a run
            end = time.monotonic() + 120
            while process.poll() is None and begun(parts) == before and time.monotonic() < end:
                time.sleep(0.1)
        time.sleep(draw.uniform(0.5, 9))
        found = ours(parts)
        runs = [pid for pid, words in found.items() if "submitit.core._submit" in words]
        kill({"sweep": [process.pid], "run": runs[:1], "tree": list(found)}[kind])
        if kind == "run":  # the sweep goes on, and tries it again
            time.sleep(draw.uniform(1, 15))
            kill([process.pid])
        process.wait(60)
    finish(sweep, parts)

    deadline = time.monotonic() + 60
    while ours(parts) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not ours(parts), "a process outlived the sweep"
    folders = {folder.name.rpartition("-")[0]: folder for folder in parts.glob("toy-*")}
    assert sorted(folders) == sorted(NAMES)  # no run lost, none twice
    for name, folder in folders.items():
        [other] = whole.glob(f"{name}-*")
        found, expected = (json.loads((each / "result.json").read_text()) for each in (folder, other))
        assert found["status"] == "done" and found["iterations"] == ITERATIONS
        assert found["metrics"] == expected["metrics"]
        assert not differences(state_of(folder), state_of(other))
        ends = [each for each in lines(folder, "end") if each["status"] == "done"]
        starts = [each for each in lines(folder) if each["event"] == "start"]
        assert len(ends) <= 1
        assert not ends or lines(folder)[-1] == ends[0], "a run was done again"
        assert len(starts) >= 2, "this run was not hit: kill more"
    before = begun(parts)
    finish(sweep, parts)  # nothing is left to do
    assert begun(parts) == before
    said = Path(f"{parts}.log").read_text()
    assert said.count("sweep toys: 3 done") == 2


def test_signals_to_all_and_two_callers(tmp_path: Path) -> None:
    """Time's warning to a job, Ctrl-C's signal to everybody at once, two calls at the same time."""
    sweep = write_sweep(tmp_path, 'axes = dict(method=["toy"], rate=[0.1])\n', CONFIG)
    work_dir = tmp_path / "w"

    def wait_for(starts: int) -> int:
        """The number of the job's process, as soon as the attempt takes steps."""
        deadline = time.monotonic() + 200
        while time.monotonic() < deadline:
            if begun(work_dir) == starts:
                [folder] = work_dir.glob("toy-*")
                pid = int(lines(folder, "start")[-1]["pid"])
                said = folder / "metrics.jsonl"
                if said.exists() and said.stat().st_mtime > lines(folder, "start")[-1]["time"]:
                    return pid
            time.sleep(0.1)
        raise AssertionError(Path(f"{work_dir}.log").read_text())

    first = start(sweep, work_dir, seconds=0.4)
    os.kill(wait_for(1), signal.SIGUSR2)  # as submitit warns of a time limit: on from the checkpoint
    pid = wait_for(2)
    for each in (pid, first.pid, pid):  # a terminal, a cgroup and the sweep itself may all tell a job
        os.kill(each, signal.SIGTERM)
    assert first.wait(60) == 75
    [folder] = work_dir.glob("toy-*")
    assert [each["status"] for each in lines(folder, "end")] == ["stopped", "stopped"]
    assert json.loads((folder / "result.json").read_text())["status"] == "stopped"
    assert not ours(work_dir)

    callers = [start(sweep, work_dir, seconds=0.1) for _ in range(2)]
    assert [each.wait(300) for each in callers] == [0, 0], Path(f"{work_dir}.log").read_text()[-3000:]
    assert len(lines(folder, "start")) == 3
    assert json.loads((folder / "result.json").read_text())["iterations"] == ITERATIONS
    assert "held by another" in Path(f"{work_dir}.log").read_text()


@pytest.mark.parametrize("held", [False, True])
def test_a_run_of_two_processes(tmp_path: Path, held: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on two GPUs: both train one run; both end at once where another call has it."""
    import submitit

    from ssod.study.sweep import jobs, state

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (PROJECT, PROJECT / "tests"))))
    write_sweep(tmp_path, config="train_cfg = dict(max_iters=4, val_interval=4)\n")
    executor = submitit.LocalExecutor(folder=tmp_path / "jobs")
    executor.update_parameters(timeout_min=10, tasks_per_node=2, gpus_per_node=0)
    with state.claimed(tmp_path / ("run" if held else "other")):
        job = jobs.Job(str(tmp_path / "run"), str(tmp_path / "toy.py"), "token", threads=1)
        handle, end = executor.submit(jobs.in_own_process, job), time.monotonic() + 120
        while not handle.done() and time.monotonic() < end:
            time.sleep(0.1)
    assert handle.done()
    assert state.ending(tmp_path / "run", "token")["status"] == ("held" if held else "done")
    if not held:
        result = json.loads((tmp_path / "run" / "result.json").read_text())
        assert (result["status"], result["world_size"], result["iterations"]) == ("done", 2, 4)
