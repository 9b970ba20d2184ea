"""Whom the signs of life show to be at fault."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from reference import ranks

from ssod.engine.faults.signs import Board, Sign, behind, ended, silent, whereabouts

FIRST, SECOND, THIRD = (Sign(rank, f"node{rank}, pid {rank}", iteration=17, number=4) for rank in range(3))


@pytest.mark.parametrize(
    ("signs", "expected"),
    [
        ((FIRST, SECOND), None),
        ((FIRST, replace(SECOND, end="done")), None),
        ((replace(FIRST, end="lost"), SECOND), None),
        (
            (replace(FIRST, end="lost"), replace(SECOND, end="ended after iteration 17: OSError: disk full")),
            "process 1 (node1, pid 1) ended after iteration 17: OSError: disk full",
        ),
    ],
)
def test_who_said_why_it_ended(signs: tuple[Sign, ...], expected: str | None) -> None:
    assert ended(signs) == expected


def test_who_gives_no_sign() -> None:
    alive = replace(FIRST, number=5)
    said = silent((FIRST, SECOND), (alive, SECOND))
    assert said is not None and said.startswith("process 1 (node1, pid 1) is gone or stopped")
    assert "from iteration 17" in said
    assert silent((FIRST, SECOND), (alive, replace(SECOND, number=6))) is None
    assert silent((FIRST, SECOND), (alive, replace(SECOND, end="lost"))) is None  # brought down, not silent


@pytest.mark.parametrize(
    ("late", "what"),
    [
        (dict(iteration=16, waits=True), "fewer iterations, whatever it does"),
        (dict(iteration=17, phase=0), "waiting for its images, the others are in the step"),
        (dict(iteration=17, phase=1), "in the same step, but not waiting for the others"),
        (dict(iteration=17, phase=1, waits=True, still=61.0), "waiting, too, but for longer"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_who_holds_up_the_others(late: dict[str, Any], what: str) -> None:
    others = [replace(each, phase=1, waits=True, still=60.0) for each in (FIRST, THIRD)]
    slow = replace(SECOND, where="decode.py:40 in read", **late)
    said = behind([others[0], slow, others[1]])
    assert said.startswith("process 1 (node1, pid 1) has not come beyond iteration"), said
    assert "at decode.py:40 in read" in said
    assert ("all processes wait for each other" in said) == slow.waits


def test_the_dead_do_not_hold_up_anyone() -> None:
    assert behind([replace(FIRST, iteration=3, end="lost"), SECOND]).startswith("process 1")


def test_whereabouts_name_the_line_and_whether_it_is_an_exchange() -> None:
    released = threading.Event()

    def step() -> None:
        released.wait()

    def _engine_run_backward() -> None:
        released.wait()

    for work, waits in ((step, False), (_engine_run_backward, True)):
        thread = threading.Thread(target=work)
        thread.start()
        limit = time.monotonic() + 60
        while whereabouts(thread.ident or 0)[0].startswith("test_signs") and time.monotonic() < limit:
            time.sleep(0.01)
        where, found = whereabouts(thread.ident or 0)
        assert where.startswith("threading.py:") and where.endswith(" in wait") and found is waits
        released.set()
        thread.join()
        released.clear()
    assert whereabouts(thread.ident or 0) == ("its end", False)


def on_a_board(rank: int) -> Any:
    """The signs that both processes read, and whether the store goes with the first."""
    import torch

    from ssod.engine.processes import start_processes

    start_processes("pytorch", 120)
    board = Board("a life", 2)
    board.put(Sign(rank, "here", iteration=rank))
    signs = board.read()
    torch.distributed.barrier()
    board.put(replace(signs[rank], end="done"))
    torch.distributed.barrier()
    later = board.read()
    torch.distributed.barrier()
    return [each.iteration for each in signs], [each.end for each in later], board.goes_with_the_first


def test_a_board_shows_all_signs_to_all(tmp_path: Path) -> None:
    expected = ([0, 1], ["done", "done"], "TORCHELASTIC_USE_AGENT_STORE" not in os.environ)
    assert ranks.run(on_a_board, tmp_path) == [expected] * 2
