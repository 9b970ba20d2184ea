"""Loader workers outlive the signal that asks the run to stop: their process answers it, and ends them."""

import os
import signal
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from torch.utils.data import DataLoader


def outlive_signals(loader: DataLoader[Any]) -> None:
    """Lets the loader's workers go on when a signal reaches a whole group of processes.

    torchrun, a terminal and `scancel` send it to all; a worker that dies of it fails the step that the run
    wants to finish. Only the worker's own process may end it with SIGTERM, as torch does with a stuck one.
    """
    loader.worker_init_fn = partial(_begin, loader.worker_init_fn)


def _begin(then: Callable[[int], None] | None, worker: int) -> None:
    """Runs in each worker before its first image."""
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    # Blocked, it can be waited for: only so does Python tell who sent it.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    threading.Thread(target=_obey_parent, args=(os.getppid(),), daemon=True).start()
    if then is not None:
        then(worker)


def _obey_parent(parent: int) -> None:
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != parent:
        pass
    os._exit(0)
