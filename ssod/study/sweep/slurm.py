"""Runs on a SLURM cluster, through submitit: arrays of jobs that live without the sweep that sent them."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssod.errors import UserError
from ssod.study.sweep import jobs
from ssod.study.sweep.jobs import Job

ASK_EVERY = 3.0  # seconds between two questions to SLURM


class Slurm:
    """Hands jobs to SLURM as arrays of which at most so many run at once.

    parameters: submitit's, such as partition, time (minutes), mem, cpus_per_task. Jobs live without this
    process; a later call finds those at work by their locks. Those that wait in the queue hold none: their
    runs are handed in again, and of two jobs for a run the second finds it claimed or done, and ends.
    """

    in_process = False

    def __init__(
        self, work_dir: Path, most: int | None, gpus: int | None, parameters: Mapping[str, Any]
    ) -> None:
        if "array_parallelism" in parameters:
            raise UserError("slurm: array_parallelism is what --max-parallel sets here: leave it out")
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
        """How many jobs may be handed over now.

        Any number where none is there: the array holds the others back. Else as many as may run beside
        those, for an array knows nothing of another.
        """
        return self.most - active if active else 10**6

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
