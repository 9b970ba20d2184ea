"""A sweep of toys through submitit under a real controller: an array, a stop, a killed sweep, going on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from reference.toy_sweep import write_sweep

from .test_slurm import PROJECT, Slurm, slurm, wait_until  # noqa: F401  the fixture

pytestmark = pytest.mark.slow

CONFIG = "train_cfg = dict(max_iters=40, val_interval=20)\ndefault_hooks['scalars']['interval'] = 1\n"


def start(cluster: Slurm, sweep: Path, seconds: float) -> subprocess.Popen[bytes]:
    """The command, one run at a time on partition "one"; it prints to `<sweep>.log`."""
    python = os.pathsep.join((str(PROJECT / "tests"), cluster.environment["PYTHONPATH"]))
    environment = {**cluster.environment, "PYTHONPATH": python, "TOY_SECONDS": str(seconds)}
    command = [sys.executable, "tools/sweep.py", str(sweep), "--work-dir", str(sweep.parent / "w")]
    command += ["--executor", "slurm", "--max-parallel", "1", "--slurm", "partition=one", "time=60"]
    with open(f"{sweep}.log", "a") as log:
        return subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=log, stderr=subprocess.STDOUT)


def iterations(sweep: Path) -> list[int]:
    """How far the runs are, in the order of their names."""
    found = []
    for folder in sorted((sweep.parent / "w").glob("toy-*")):
        path = folder / "metrics.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        found.append(max((json.loads(line)["iteration"] for line in lines), default=0))
    return found


def attempts(sweep: Path, event: str, **more: Any) -> list[dict[str, Any]]:
    lines = [
        json.loads(line)
        for path in (sweep.parent / "w").glob("toy-*/attempts.jsonl")
        for line in path.read_text().splitlines()
    ]
    return [each for each in lines if {"event": event, **more}.items() <= each.items()]


def queue(cluster: Slurm) -> list[str]:
    return cluster("squeue", "-h", "-r", "-o", "%i %T").splitlines()


def test_stopped_killed_and_gone_on(slurm: Slurm, tmp_path: Path) -> None:  # noqa: F811
    sweep = write_sweep(tmp_path, config=CONFIG)
    said = Path(f"{sweep}.log")
    first = start(slurm, sweep, 0.5)
    wait_until(lambda: sum(iterations(sweep)) >= 2 or first.poll() is not None, "the first steps")
    assert first.poll() is None, said.read_text()
    waiting = [line for line in queue(slurm) if line.endswith("PENDING")]
    assert len(waiting) == 1 and "_1" in waiting[0], "an array of two, one at a time"
    first.send_signal(signal.SIGTERM)
    assert first.wait(120) == 75, said.read_text()
    assert not queue(slurm)
    assert len(attempts(sweep, "end", status="stopped")) == len(attempts(sweep, "start")) == 1
    [stopped] = [json.loads(p.read_text()) for p in (tmp_path / "w").glob("toy-*/result.json")]
    assert stopped["status"] == "stopped" and 2 <= stopped["iterations"] < 40

    second = start(slurm, sweep, 0.5)  # killed: its jobs are SLURM's, and go on
    wait_until(lambda: len(attempts(sweep, "start")) >= 2 or second.poll() is not None, "the second start")
    second.kill()
    second.wait()
    third = start(slurm, sweep, 0.0)
    assert third.wait(600) == 0, said.read_text()
    assert "held by another" in said.read_text()
    results = [json.loads(p.read_text()) for p in (tmp_path / "w").glob("toy-*/result.json")]
    assert [(each["status"], each["iterations"]) for each in results] == [("done", 40)] * 2
    wait_until(lambda: not queue(slurm), "the killed sweep's jobs to find nothing to do")
    trained = {each["attempt"] for each in attempts(sweep, "start")}
    done = [each for each in attempts(sweep, "end", status="done") if each["attempt"] in trained]
    assert len(trained) == 3 and len(done) == 2, "one was stopped, each was finished once"
    assert all(Path(each["log"]).exists() for each in done)
