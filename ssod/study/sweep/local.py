"""Runs in processes of this machine, through submitit: cores and GPUs shared, and none outlives its sweep."""

from __future__ import annotations

import fcntl
import os
import signal
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ssod.engine.loading import usable_cores
from ssod.errors import UserError
from ssod.study.sweep import jobs
from ssod.study.sweep.jobs import Job
from ssod.study.sweep.state import alone

LIVES = ".lives"
FOREVER = 60 * 24 * 365  # minutes; submitit ends a local job after two, unless it is told


class Local:
    """Runs jobs in processes of this machine, at most so many at once.

    Each has its share of the cores, or its own GPUs. All end if this process does, by themselves: they wait
    for a lock that it holds, and stop as at SIGTERM, with a checkpoint, when they get it.
    """

    in_process = False

    def __init__(self, work_dir: Path, most: int | None = None, gpus: int = 1) -> None:
        self.devices = _visible_gpus()
        self.gpus = gpus if self.devices else 0
        fitting = len(self.devices) // gpus if self.devices else usable_cores()
        if self.devices and not fitting:
            raise UserError(
                f"a run wants {gpus} GPUs and there are {len(self.devices)}: lower gpus in the sweep"
            )
        self.most = min(most or fitting, fitting) if self.devices else most or fitting
        self.threads = max(usable_cores() // self.most, 1)
        self.slots: dict[int, Any] = {}
        self.life = work_dir / LIVES / uuid.uuid4().hex
        with alone(work_dir):
            self.life.parent.mkdir(exist_ok=True)
            _sweep_up(self.life.parent)
            self.lock = open(self.life, "w")  # noqa: SIM115  as long as the jobs
            fcntl.flock(self.lock, fcntl.LOCK_EX)

    def room(self, active: int) -> int:
        """How many jobs may be started now."""
        return self.most - active

    def start(self, todo: Sequence[Job]) -> list[Any]:
        """A submitit job for each."""
        import submitit

        handles = []
        for job in todo:
            slot = next(each for each in range(self.most) if each not in self.slots)
            executor = submitit.LocalExecutor(folder=Path(job.folder, "jobs"))
            own = self.devices[slot * self.gpus : (slot + 1) * self.gpus]
            executor.update_parameters(
                timeout_min=FOREVER,
                tasks_per_node=max(self.gpus, 1),
                gpus_per_node=self.gpus,
                visible_gpus=own,
            )
            complete = replace(job, threads=self.threads, life=str(self.life))
            with _ignoring(signal.SIGINT, signal.SIGHUP):
                handle = executor.submit(jobs.in_own_process, complete)
            self.slots[slot] = handle
            handles.append(handle)
        return handles

    def over(self, handle: Any) -> bool:
        """Whether a job has ended."""
        if not handle.done():
            return False
        self.slots = {slot: other for slot, other in self.slots.items() if other is not handle}
        return True

    def stop(self, handles: Sequence[Any]) -> None:
        """Tells all jobs to write a checkpoint and end."""
        self.lock.close()

    def close(self) -> None:
        """Gives back the lock that jobs live by."""
        self.lock.close()
        self.life.unlink(missing_ok=True)


def _visible_gpus() -> tuple[int, ...]:
    """The numbers of the GPUs that this process may use."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    said = os.environ.get("CUDA_VISIBLE_DEVICES", "").strip()
    if not count or not said:
        return tuple(range(count))
    named = [each.strip() for each in said.split(",")][:count]
    if not all(map(str.isdigit, named)):
        raise UserError(f"CUDA_VISIBLE_DEVICES={said}: name GPUs by number here, such as 0,1")
    return tuple(map(int, named))


def _sweep_up(folder: Path) -> None:
    """Removes what killed sweeps left: files that nobody holds."""
    for path in folder.iterdir():
        with open(path) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
        path.unlink(missing_ok=True)


@contextmanager
def _ignoring(*signals: signal.Signals) -> Iterator[None]:
    """A block whose child processes are deaf to the signals of a terminal, which all of its group get."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
