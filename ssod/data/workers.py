"""Loader workers that outlive the signals of a whole job, and never their parent.

Ctrl-C and SLURM send a signal to every process of a job. The process that trains finishes its step and writes
a checkpoint, for which it needs its workers; so they leave those signals to it, and end when it tells them to
or is gone.
"""

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable
from multiprocessing.queues import Queue
from typing import Any

from torch._utils import ExceptionWrapper

_PR_SET_PDEATHSIG = 1  # of Linux's prctl


class SteadyWorker:
    """A `worker_init_fn`: calls the one given, if any, then makes the worker deaf to the job's signals.

    SIGINT, SIGHUP and SIGUSR1 are ignored, and SIGTERM of any sender but the parent: torch's loader and
    Python's exit stop a worker with it. A worker whose parent dies is killed by the kernel at once; elsewhere
    than on Linux torch's own watch finds out within 5 s, and SIGTERM of any sender ends a worker.

    A batch that can't be handed over, for want of shared memory mostly, is an error in the process that
    trains. Python would print a traceback and lose the batch, and training would wait for it for ever.
    """

    def __init__(self, first: Callable[[int], Any] | None = None) -> None:
        self.first = first

    def __call__(self, worker: int) -> None:
        """Runs in the worker, before its first image."""
        if self.first is not None:
            self.first(worker)
        Queue._on_queue_feeder_error = _send_error  # type: ignore[attr-defined]
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)
        if sys.platform == "linux":
            parent = os.getppid()
            _obey_only(parent)
            _die_with(parent)


def _send_error(queue: Any, error: BaseException, item: Any) -> None:
    """Puts what went wrong in the place of the item, (number of the batch, batch), that can't be put."""
    kept = (type(error), error, error.__traceback__)
    fault = ExceptionWrapper(kept, "in a loader worker, handing over a batch")  # type: ignore[no-untyped-call]
    queue.put((item[0], fault))


def _obey_only(parent: int) -> None:
    """Makes SIGTERM end this process if `parent` sent it, and do nothing otherwise.

    A handler in Python isn't told who sent a signal; `sigwaitinfo` is. Threads that begin later inherit the
    mask.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def wait() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
            pass
        os._exit(0)

    threading.Thread(target=wait, daemon=True, name="sigterm").start()


def _die_with(parent: int) -> None:
    """Has the kernel kill this process when `parent` ends, however it ends.

    What a worker inherited, such as the lock of a work dir, is free at once then, so that a killed run can be
    resumed without a wait.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before it was asked
        os._exit(1)
