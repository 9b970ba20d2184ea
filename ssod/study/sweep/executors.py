"""Where jobs run: in this process, in others on this machine, on a SLURM cluster; all through submitit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssod.errors import UserError, check_choice
from ssod.study.sweep import jobs
from ssod.study.sweep.jobs import Job
from ssod.study.sweep.local import Local
from ssod.study.sweep.slurm import Slurm

KINDS = ("local", "slurm", "debug")


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
