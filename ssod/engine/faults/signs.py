"""Signs of life: what each process of a run says of itself, and whom they show to hold up the others."""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

SECONDS_TO_ANSWER = 10  # of the store, before it counts as gone
DONE, LOST = "done", "lost"  # ends that are not a process's own fault; others brought down the lost ones


@dataclass(frozen=True)
class Sign:
    """How far a process came, how long it has stood still, and how it ended if it did.

    place: "host, pid 123" · number: of the sign · iteration: finished ones · phase, doing: since then, as a
    number that grows and in words · still: seconds without progress · where: the line of Python it is at ·
    waits: whether it exchanges something with the others there · end: "" while it lives, "done", "lost"
    (others brought it down), or what happened: "ended after iteration 3: OSError: ...".
    """

    rank: int
    place: str
    number: int = 0
    iteration: int = 0
    phase: int = 0
    doing: str = "starting"
    still: float = 0.0
    where: str = ""
    waits: bool = False
    end: str = ""

    @property
    def name(self) -> str:
        """The process, for a sentence."""
        return f"process {self.rank} ({self.place})"

    @property
    def standstill(self) -> str:
        """Where it stands and for how long, for a sentence."""
        return (
            f"has not come beyond iteration {self.iteration} for {self.still:.0f} s: it is {self.doing}, "
            f"at {self.where}"
        )


def ended(signs: Sequence[Sign]) -> str | None:
    """A sentence on the first process that ended by itself before its time, None if there is none."""
    for sign in signs:
        if sign.end not in ("", DONE, LOST):
            return f"{sign.name} {sign.end}"
    return None


def silent(before: Sequence[Sign], now: Sequence[Sign]) -> str | None:
    """A sentence on the first process that gave no sign between the two, None if there is none."""
    for old, new in zip(before, now, strict=True):
        if new.number == old.number and not new.end:
            return (
                f"{new.name} is gone or stopped: its last sign of life is from iteration {new.iteration}, "
                f"{new.doing}"
            )
    return None


def behind(signs: Sequence[Sign]) -> str:
    """A sentence on the living process that holds up the others: the least far, not waiting, longest."""
    living = [each for each in signs if not each.end] or signs
    slowest = min(living, key=lambda each: (each.iteration, each.phase, each.waits, -each.still))
    all_wait = "; all processes wait for each other" if slowest.waits and len(living) > 1 else ""
    return f"{slowest.name} {slowest.standstill}{all_wait}"


def whereabouts(thread: int) -> tuple[str, bool]:
    """The line a thread is at, "file.py:12 in function", and whether it exchanges something there."""
    frame = sys._current_frames().get(thread)
    if frame is None:
        return "its end", False
    where = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} in {frame.f_code.co_name}"
    waits = False
    for _ in range(6):  # an exchange is a few calls deep
        if frame is not None:
            code = frame.f_code
            # Gradients are exchanged inside of the backward pass, which is one call for Python.
            waits |= "/torch/distributed/" in code.co_filename or code.co_name == "_engine_run_backward"
            frame = frame.f_back
    return where, waits


class Board:
    """Where processes leave their signs for each other: keys of the process group's store.

    life: of this start of the run: a store may outlive it. Raises RuntimeError where the store is gone.
    """

    def __init__(self, life: str, world_size: int) -> None:
        distributed: Any = torch.distributed
        self.store = distributed.PrefixStore(f"signs/{life}", _own_connection())
        self.keys = [str(rank) for rank in range(world_size)]

    def put(self, sign: Sign) -> None:
        """Replaces the process's last sign."""
        self.store.set(str(sign.rank), json.dumps(asdict(sign)))

    def read(self) -> list[Sign]:
        """The last sign of each process, by rank; waits for those that have not put any."""
        return [Sign(**json.loads(each)) for each in self.store.multi_get(self.keys)]

    @property
    def goes_with_the_first(self) -> bool:
        """Whether the store ends with process 0; torchrun's agent keeps it otherwise."""
        return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"


def _own_connection() -> Any:
    """A second connection to the process group's store: requests on the first one wait for each other."""
    distributed: Any = torch.distributed
    store = distributed.distributed_c10d._get_default_store()
    while hasattr(store, "underlying_store"):
        store = store.underlying_store
    if not isinstance(store, distributed.TCPStore):
        return store
    return distributed.TCPStore(
        store.host,
        store.port,
        is_master=False,
        wait_for_workers=False,
        timeout=timedelta(seconds=SECONDS_TO_ANSWER),
    )
