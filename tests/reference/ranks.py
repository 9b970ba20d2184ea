"""Processes of one run, forked from the test's: their imports are paid once."""

from __future__ import annotations

import os
import pickle
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any


def free_port() -> int:
    """A port of this machine that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(work: Callable[[int], Any], folder: Path, count: int = 2, **environment: str) -> list[int]:
    """The pids of `count` processes that do the work, given their rank, with a launcher's environment.

    Each leaves what it returns, or its exception as text, in `<rank>.out` of the folder, and its stderr in
    `<rank>.err`; it ends with 0, or with 1 after an exception.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    meeting = dict(WORLD_SIZE=str(count), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port()))
    pids = []
    for rank in range(count):
        pid = os.fork()
        if pid == 0:
            os.environ.update(meeting, RANK=str(rank), LOCAL_RANK=str(rank), **environment)
            _be(work, rank, folder)
        pids.append(pid)
    return pids


def _be(work: Callable[[int], Any], rank: int, folder: Path) -> None:
    """Does the work and ends the process: nothing else of the test's may run in a fork."""
    code = 1
    try:
        os.dup2(os.open(folder / f"{rank}.err", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
        outcome: Any
        try:
            outcome, code = work(rank), 0
        except BaseException as error:
            outcome = f"{type(error).__name__}: {error}"
            traceback.print_exc()
        (folder / f"{rank}.out").write_bytes(pickle.dumps(outcome))
    finally:
        os._exit(code)


def codes(pids: list[int], seconds: float = 240.0) -> list[int]:
    """The exit codes, minus the signal where one ended a process; who takes longer is killed."""
    found: dict[int, int] = {}
    limit = time.monotonic() + seconds
    while len(found) < len(pids):
        for pid in pids:
            if pid in found:
                continue
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                found[pid] = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > limit:
                os.kill(pid, 9)
        time.sleep(0.02)
    return [found[pid] for pid in pids]


def outcomes(folder: Path, count: int = 2) -> list[Any]:
    """What each process returned, its exception as text, or None where it left nothing."""
    paths = [folder / f"{rank}.out" for rank in range(count)]
    return [pickle.loads(path.read_bytes()) if path.exists() else None for path in paths]


def run(work: Callable[[int], Any], folder: Path, count: int = 2, **environment: str) -> list[Any]:
    """What the work returns on each of `count` processes; AssertionError, with its stderr, if one failed."""
    ends = codes(start(work, folder, count, **environment))
    said = [(folder / f"{rank}.err").read_text() for rank in range(count)]
    assert ends == [0] * count, "\n".join(said)
    return outcomes(folder, count)
