"""A process that dies, fails or hangs: what the others say, and how all of them end."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from reference import ranks

from ssod.cli import exit_code
from ssod.engine.faults.rank_watch import RankWatch, watched
from ssod.engine.faults.signs import Sign
from ssod.engine.processes import start_processes
from ssod.errors import UserError

TIMEOUT = 12.0  # seconds: long enough for a busy machine to give each process its turn
Fault = Callable[[], None]


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def stopped() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def hanging() -> None:
    time.sleep(1000)


def failing() -> None:
    raise ValueError("the disk\nis full")


def wrong() -> None:
    raise UserError("no such file")


def slow() -> None:
    time.sleep(TIMEOUT / 3)  # every step: longer than the timeout in all


def train(rank: int, guilty: int, fault: Fault) -> int:
    """The exit code of six steps with an exchange each; the guilty process meets its fault in the fourth."""

    def steps() -> int:
        start_processes("pytorch", TIMEOUT)
        with watched(TIMEOUT) as watch:
            runner: Any = SimpleNamespace(iter=0)
            watch.before_train(runner)
            for runner.iter in range(6):
                watch.before_train_iter(runner, runner.iter)
                if rank == guilty and (runner.iter == 3 or fault is slow):
                    fault()
                time.sleep(1.5 * watch.interval)  # time for a sign
                torch.distributed.all_reduce(torch.ones(3))
                watch.after_train_iter(runner, runner.iter)
            watch.after_train(runner)
        return 0

    os._exit(exit_code(steps))


# guilty process, fault, exit codes of both, what the other one says
CASES: dict[str, tuple[int, Fault, list[int], str]] = {
    "killed": (1, killed, [1, -9], "process 1 (.*) is gone or stopped.* from iteration [23], "),
    "killed, with the store": (0, killed, [-9, 1], "process 0 or torchrun's agent beside it is gone"),
    "stopped": (1, stopped, [1, -9], "process 1 (.*) is gone or stopped.* from iteration [23], "),
    "hanging": (
        1,
        hanging,
        [1, 1],
        r"process 1 (.*) has not come beyond iteration 3 for 1\d s: it is in the next step, at "
        r"test_rank_watch.py:\d+ in hanging; the last checkpoint",
    ),
    "failing": (1, failing, [1, 1], "process 1 (.*) ended after iteration 3: ValueError: the disk"),
    "failing, with the store": (0, failing, [1, 1], "process 0 (.*) ended after iteration 3: ValueError"),
    "wrong input": (1, wrong, [1, 2], "process 1 (.*) ended after iteration 3: UserError: no such file"),
    "slow": (1, slow, [0, 0], ""),
}


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[list[int], list[str]]]]:
    """For each case the exit codes and what each process wrote; all cases at once: they mostly wait."""
    folder = tmp_path_factory.mktemp("ends")
    started = {
        name: ranks.start(lambda rank, g=guilty, f=fault: train(rank, g, f), folder / name)  # type: ignore[misc]
        for name, (guilty, fault, _, _) in CASES.items()
    }
    codes = {}
    for name, pids in started.items():
        if name == "stopped":
            codes[name] = ranks.codes(pids[:1]) + ranks.codes(pids[1:], seconds=0.0)
        else:
            codes[name] = ranks.codes(pids)
    yield {
        name: (codes[name], [(folder / name / f"{rank}.err").read_text() for rank in (0, 1)])
        for name in CASES
    }


@pytest.mark.parametrize("name", CASES)
def test_one_line_names_the_process_and_all_end(name: str, ends: dict[str, Any]) -> None:
    guilty, _, codes, said = CASES[name]
    found, errors = ends[name]
    assert found == codes, errors
    if said:
        last = errors[1 - guilty].strip().splitlines()[-1]
        assert last.startswith("error: ") and last.endswith("go on with --resume")
        pattern = said.replace("(.*)", r"\([^)]*\)", 1)
        assert re.search(pattern, last), last
        assert "Traceback" not in errors[1 - guilty]
    else:
        assert errors == ["", ""]


def test_alone_there_is_nothing_to_watch() -> None:
    with watched(1.0) as watch:
        assert watch.board is None and not watch.thread.is_alive()
    with pytest.raises(RuntimeError, match="gloo"), watched(1.0):  # its own, and passed on as it is
        raise RuntimeError("gloo")


def test_the_timeout_sets_the_interval() -> None:
    assert RankWatch(5.0).interval == 0.5 and RankWatch(1800.0).interval == 2.0


def test_only_a_long_silence_is_taken_for_death() -> None:
    watch = RankWatch(1800.0)
    watch.armed = True
    mute, alive = Sign(1, "there", number=3, iteration=17), Sign(0, "here", number=3)
    for tick in range(15):  # two seconds each: 28 in all, the first reading is the beginning
        assert watch._long_silent([replace(alive, number=3 + tick), mute], 2.0 if tick else 0.0) is None
    said = watch._long_silent([alive, mute], 2.0)
    assert said is not None and said.startswith("process 1 (there) is gone or stopped")
    assert watch._long_silent([alive, replace(mute, number=4)], 2.0) is None  # it was only busy
