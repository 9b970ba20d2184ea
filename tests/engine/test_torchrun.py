"""Under torchrun: lost processes and lost agents end in a finished run; what a signal to the agent does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from reference import ranks

PROJECT = Path(__file__).resolve().parents[2]
TOY = PROJECT / "tests" / "reference" / "toy_run.py"
# A checkpoint after every step, and exchanges that give up soon.
MORE = """
train_cfg = dict(max_iters=12, val_interval=12)
default_hooks["checkpoint"] = dict(type="Checkpoints", interval=1)
env_cfg = dict(dist_cfg=dict(timeout=60))
"""
pytestmark = pytest.mark.slow
Agent = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def agent(toy_config: Callable[[str], Path], tmp_path: Path) -> Iterator[Agent]:
    """Function: starts torchrun with options and an environment; its output goes to `<name>.log`."""
    started: list[subprocess.Popen[str]] = []
    config = toy_config(MORE)

    def start(name: str, *options: str, words: tuple[str, ...] = (), **more: str) -> subprocess.Popen[str]:
        torchrun = [sys.executable, "-m", "torch.distributed.run", *options]
        program = [str(TOY), str(config), "--work-dir", str(tmp_path / "run"), *words]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT), **more}
        with (tmp_path / f"{name}.log").open("w") as log:
            started.append(
                subprocess.Popen(
                    [*torchrun, *program], stdout=log, stderr=subprocess.STDOUT, text=True, env=environment
                )
            )
        return started[-1]

    yield start
    for each in started:
        if each.poll() is None:
            each.kill()


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 300) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, f"no {what} after {seconds} s"
        time.sleep(0.1)


def result_of(work_dir: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((work_dir / "result.json").read_text())
    return content


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_killed_process_is_restarted_and_the_run_finishes(agent: Agent, tmp_path: Path) -> None:
    torchrun = agent("log", "--standalone", "--nproc-per-node=2", "--max-restarts=1", TOY_KILL="1:6")
    code, said = torchrun.wait(timeout=400), (tmp_path / "log.log").read_text()
    assert code == 0, said
    result = result_of(tmp_path / "run")
    assert (result["status"], result["iterations"], result["world_size"]) == ("done", 12, 2)
    assert "is gone or stopped: its last sign of life" in said  # what the other process said
    assert said.count("torchrun restarted the run: it goes on from the last checkpoint") == 1
    assert f"resuming {tmp_path / 'run' / 'checkpoints' / 'last.pth'}" in said


def test_without_restarts_the_run_fails_and_says_which_process(agent: Agent, tmp_path: Path) -> None:
    torchrun = agent("log", "--standalone", "--nproc-per-node=2", TOY_KILL="1:6")
    code, said = torchrun.wait(timeout=400), (tmp_path / "log.log").read_text()
    assert code == 1, said
    assert "error: process 1 (" in said and "go on with --resume" in said
    result = result_of(tmp_path / "run")
    assert result["status"] == "failed" and result["error"].startswith("RunError: process 1 (")


def test_a_lost_agent_is_replaced_and_the_run_finishes(
    agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two machines on loopback; the second is lost with its process, and another takes its place.

    The variable makes torchrun publish a new meeting point for each round: without it, the newcomer looks for
    one that the first agent never writes again (seen with torch 2.15).
    """
    meeting = f"127.0.0.1:{ranks.free_port()}"
    monkeypatch.setenv("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    options = ("--nnodes=2", "--nproc-per-node=1", "--max-restarts=3", "--rdzv-backend=c10d")
    where = (f"--rdzv-endpoint={meeting}", "--rdzv-id=toy")
    first = agent("first", *options, *where, "--rdzv-conf=is_host=1", TOY_SECONDS="1")
    second = agent("second", *options, *where, "--rdzv-conf=is_host=0", TOY_SECONDS="1")
    last = tmp_path / "run" / "checkpoints" / "last.pth"
    wait_for(last.exists, "checkpoint")
    for pid in (second.pid, *children(second.pid)):
        os.kill(pid, signal.SIGKILL)
    third = agent("third", *options, *where, "--rdzv-conf=is_host=0")
    codes = first.wait(timeout=400), third.wait(timeout=400)
    said = (tmp_path / "first.log").read_text() + (tmp_path / "third.log").read_text()
    assert codes == (0, 0), said
    result = result_of(tmp_path / "run")
    assert (result["status"], result["iterations"], result["world_size"]) == ("done", 12, 2)
    assert "torchrun restarted the run" in said and "resuming " in said


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_to_the_agent_reaches_the_processes(agent: Agent, tmp_path: Path, name: str) -> None:
    """They write a checkpoint and end with 75; torchrun itself ends with 1."""
    words = ("--cfg-options", "train_dataloader.num_workers=2")
    torchrun = agent("log", "--standalone", "--nproc-per-node=2", words=words, TOY_SECONDS="1")
    wait_for((tmp_path / "run" / "checkpoints" / "last.pth").exists, "checkpoint")
    torchrun.send_signal(getattr(signal, name))
    code, said = torchrun.wait(timeout=100), (tmp_path / "log.log").read_text()
    assert result_of(tmp_path / "run")["status"] == "stopped", said
    assert code == 1, said
