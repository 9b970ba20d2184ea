"""What the process of one run does: it claims the run, trains it, and notes how that ended.

Nothing heavy is imported up here: the number of threads must be set before torch comes.
"""

import fcntl
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssod.errors import RunError, UserError
from ssod.study.sweep.state import ATTEMPTS, attempts, claimed, is_done, note

# How an attempt ends -> the process's exit code, those of tools/train.py.
CODES = {"done": 0, "held": 75, "stopped": 75, "refused": 2, "failed": 1}
PATIENCE = 2.0  # seconds in which a claim is tried again
LOOK_EVERY = 0.2  # seconds
FIRST_WORD = 600.0  # seconds in which a job's first process says something, or is taken for dead


@dataclass(frozen=True)
class Job:
    """One attempt at a run. token: the attempt's name · threads: of torch on a CPU, None: as it comes ·
    life: a file that the sweep keeps locked as long as it lives; without it the job stops."""

    folder: str
    config: str
    token: str
    threads: int | None = None
    life: str | None = None


def in_own_process(job: Job) -> None:
    """Runs the job and ends the process with tools/train.py's exit code."""
    threads = job.threads or os.environ.get("SLURM_CPUS_PER_TASK")
    for variable, value in (("OMP_WAIT_POLICY", "PASSIVE"), ("OMP_NUM_THREADS", threads)):
        if value is not None:
            os.environ.setdefault(variable, str(value))
    if os.environ.get("SUBMITIT_EXECUTOR") == "local":
        _leave_the_sweeps_own_launcher()
        with suppress(OSError):
            os.setsid()  # the terminal's Ctrl-C is for the sweep, which tells us
    code = CODES[run(job, _listen(job))]
    sys.stdout.flush()
    sys.stderr.flush()
    if code:
        sys.exit(code)


def run(job: Job, listen: Callable[[], Any] | None = None) -> str:
    """How the attempt ended, as `CODES` has it, noted in attempts.jsonl by the first of its processes."""
    folder = Path(job.folder)
    if _rank() > 0:
        return _without_us(job) or _train(job, listen)[0]
    with claimed(folder, PATIENCE) as ours:
        if not ours or _held_outside(folder):
            return _note_end(job, "held", "")
        if is_done(folder):
            return _note_end(job, "done", "")
        note(folder, "start", job.token, **_printed_to())
        return _note_end(job, *_train(job, listen))


def _without_us(job: Job) -> str | None:
    """How the attempt ended where the job's first process has nothing to train; None when it begins to."""
    end = time.monotonic() + FIRST_WORD
    while time.monotonic() < end:
        for line in attempts(Path(job.folder)):
            if line.get("attempt") == job.token:
                return None if line["event"] == "start" else str(line["status"])
        time.sleep(LOOK_EVERY)
    print(
        f"error: the job's first process has written nothing to {job.folder}/{ATTEMPTS} in {FIRST_WORD:g} s: "
        "see its log (killed, out of memory, or the folder can't be written)",
        file=sys.stderr,
    )
    return "failed"


def _note_end(job: Job, status: str, error: str) -> str:
    note(
        Path(job.folder),
        "end",
        job.token,
        status=status,
        **_printed_to(),
        **({"error": error} if error else {}),
    )
    return status


def _printed_to() -> dict[str, str]:
    """Where submitit puts what this process prints; empty where it prints to the sweep's own terminal."""
    if "SUBMITIT_EXECUTOR" not in os.environ:
        return {}
    from submitit import JobEnvironment

    return {"log": str(JobEnvironment().paths.stderr)}


def _rank() -> int:
    """This process's place among those of the job.

    A local sweep may run within a SLURM job: that one's SLURM_PROCID says nothing of ours.
    """
    local = os.environ.get("SUBMITIT_EXECUTOR") == "local"
    return int(os.environ.get("SUBMITIT_LOCAL_GLOBALID" if local else "SLURM_PROCID", 0))


def _held_outside(folder: Path) -> bool:
    """Whether a run that no sweep started writes to the folder."""
    try:
        with open(folder / ".lock") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no run was there, or the file system can't lock
        return False
    return False


def _train(job: Job, listen: Callable[[], Any] | None) -> tuple[str, str]:
    """How the training ended, and the error's line."""
    from ssod.engine.stop import StopSignal
    from ssod.engine.train import train

    stop = listen() if listen is not None else StopSignal()
    try:
        _join_local_processes()
        with stop.listening():
            result = train(job.config, work_dir=job.folder, resume=True, stop=stop)
        return ("stopped", "") if result["status"] == "stopped" else ("done", "")
    except UserError as error:
        print(f"error: {error.one_line}", file=sys.stderr)
        return "refused", error.one_line
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return "failed", str(error)
    except Exception as error:
        import traceback

        traceback.print_exc()
        return "failed", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _leave_the_sweeps_own_launcher() -> None:
    """Forgets which process of srun or torchrun the sweep itself is: its jobs are runs of their own."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "SLURM_STEP_NUM_TASKS"):
        os.environ.pop(name, None)


def _join_local_processes() -> None:
    """Tells the processes of a local job with several GPUs where they meet."""
    if os.environ.get("SUBMITIT_EXECUTOR") != "local" or int(os.environ.get("SUBMITIT_LOCAL_NTASKS", 1)) < 2:
        return
    from submitit.helpers import TorchDistributedEnvironment

    TorchDistributedEnvironment().export(set_cuda_visible_devices=False)
    os.environ["MASTER_ADDR"] = "127.0.0.1"  # a machine's own name is not always known to itself


# ------------------------------------------------------------ signals


def _listen(job: Job) -> Callable[[], Any]:
    """Listens from now on; the function gives the StopSignal that the training asks.

    Until then a signal ends the process: nothing is lost, nothing has begun. Once the training has got one,
    further ones change nothing, so that a group's signal and the sweep's own don't add up to a kill.
    """
    heard: dict[str, Any] = {"stop": None}

    def receive(number: int, frame: Any) -> None:
        stop = heard["stop"]
        if number == signal.SIGUSR2:  # submitit's warning that time is up
            os.kill(os.getpid(), signal.SIGUSR1)
        elif stop is None or not stop.received:
            with suppress(OSError):
                _note_end(job, "stopped", "")
            os._exit(CODES["stopped"])

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, receive)
    if job.life is not None:
        threading.Thread(target=_outlive, args=(job.life,), daemon=True).start()

    def hand_over() -> Any:
        from ssod.engine.stop import StopSignal

        heard["stop"] = StopSignal()
        return heard["stop"]

    return hand_over


def _outlive(life: str) -> None:
    """Waits until the sweep is gone or wants its jobs to stop; then tells this process, once."""
    with suppress(OSError), open(life) as file:
        fcntl.flock(file, fcntl.LOCK_SH)
    os.kill(os.getpid(), signal.SIGTERM)
