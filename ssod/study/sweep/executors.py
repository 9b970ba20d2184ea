"""Where jobs run: in this process, in others on this machine, on a SLURM cluster; all through submitit."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ssod.engine.loading import usable_cores
from ssod.errors import UserError, check_choice
from ssod.study.sweep import jobs
from ssod.study.sweep.jobs import Job
from ssod.study.sweep.state import alone

KINDS = ("local", "slurm", "debug")
LIVES = ".lives"
FOREVER = 60 * 24 * 365  # minutes; submitit ends a local job after two, unless it is told
ASK_EVERY = 3.0  # seconds between two questions to SLURM


class Debug:
    """Runs each job in this process, when it is started."""

    in_process = True

    def __init__(self, work_dir: Path) -> None:
        self.most = 1

    def room(self, active: int) -> int:
        """How many jobs may be started now."""
        return 1 - active

    def start(self, todo: Sequence[Job]) -> list[Any]:
        """A handle for each job, which is over when this returns."""
        import submitit

        handles = []
        for job in todo:
            executor = submitit.AutoExecutor(folder=Path(job.folder, "jobs"), cluster="debug")
            handle = executor.submit(jobs.run, job)
            handle.results()
            handles.append(handle)
        return handles

    def over(self, handle: Any) -> bool:
        """Whether a job has ended."""
        return True

    def stop(self, handles: Sequence[Any]) -> None:
        """Nothing: what runs here gets this process's signals."""

    def close(self) -> None:
        """Nothing to give back."""


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


class Slurm:
    """Hands jobs to SLURM as arrays of which at most so many run at once.

    parameters: submitit's, such as partition, time (minutes), mem, cpus_per_task. Jobs live without this
    process; a later call finds them at work by their locks, and those that wait in the queue by theirs.
    """

    in_process = False

    def __init__(
        self, work_dir: Path, most: int | None, gpus: int | None, parameters: Mapping[str, Any]
    ) -> None:
        self.folder, self.most = work_dir / "jobs", most or 256
        self.parameters: dict[str, Any] = {"time": 24 * 60, "job_name": work_dir.name, **parameters}
        if gpus is not None:
            self.parameters.setdefault("gpus_per_node", gpus)
        if (gpus or 1) > 1:
            self.parameters.setdefault("ntasks_per_node", gpus)
            self.parameters.setdefault("srun_args", ["--kill-on-bad-exit=1"])
        self.asked = -ASK_EVERY
        self.queued: set[str] = set()

    def room(self, active: int) -> int:
        """How many jobs may be handed over now: any number, as soon as not as many as may run are left."""
        return 10**6 if active < self.most else 0

    def start(self, todo: Sequence[Job]) -> list[Any]:
        """A submitit job for each."""
        import submitit

        try:
            executor = submitit.SlurmExecutor(folder=self.folder)
            executor.update_parameters(**self.parameters, array_parallelism=self.most)
        except (RuntimeError, ValueError) as error:
            raise UserError(f"--executor slurm: {' '.join(str(error).split())[:300]}") from None
        try:
            with executor.batch():
                handles = [executor.submit(jobs.in_own_process, job) for job in todo]
        except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
            raise UserError(
                f"--executor slurm: sbatch refuses: {' '.join(str(error).split())[:300]}"
            ) from None
        self.asked = -ASK_EVERY
        return handles

    def over(self, handle: Any) -> bool:
        """Whether a job has ended."""
        now = time.monotonic()
        if now - self.asked > ASK_EVERY:
            answer = _squeue()
            if answer is None:
                return False
            self.asked, self.queued = now, answer
        return handle.job_id not in self.queued

    def stop(self, handles: Sequence[Any]) -> None:
        """Takes waiting jobs out of the queue, and has those at work write a checkpoint and end."""
        numbers = [handle.job_id for handle in handles]
        if numbers:
            subprocess.run(["scancel", "--state=PENDING", *numbers], check=False, capture_output=True)
            subprocess.run(["scancel", "--signal=TERM", *numbers], check=False, capture_output=True)
        self.asked = -ASK_EVERY

    def close(self) -> None:
        """Nothing to give back."""


Executor = Debug | Local | Slurm


def make_executor(
    kind: str,
    work_dir: Path,
    most: int | None,
    gpus: int | None = None,
    slurm: Mapping[str, Any] | None = None,
) -> Executor:
    """The executor of a name; most: `--max-parallel`."""
    check_choice("sweep", "executor", kind, KINDS)
    if most is not None and most < 1:
        raise UserError(f"--max-parallel {most}: give a number of at least 1")
    if kind == "debug":
        return Debug(work_dir)
    return Local(work_dir, most, gpus or 1) if kind == "local" else Slurm(work_dir, most, gpus, slurm or {})


def _squeue() -> set[str] | None:
    """The jobs in SLURM's queue, as submitit names them; None where it does not answer."""
    command = ["squeue", "-h", "-r", "-u", str(os.getuid()), "-o", "%F %K %T"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode:
        return None
    lines = [line.split() for line in done.stdout.splitlines() if line.strip()]
    return {number if task == "N/A" else f"{number}_{task}" for number, task, *_ in lines}


def _visible_gpus() -> tuple[int, ...]:
    """The numbers of the GPUs that this process may use."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    named = [each.strip() for each in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    return tuple(map(int, named[:count])) if count and all(map(str.isdigit, named)) else tuple(range(count))


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
