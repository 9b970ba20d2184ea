"""Loader workers outlive the signal that asks the run to stop: their process answers it, and ends them."""

import signal
from collections.abc import Callable
from functools import partial
from typing import Any

from torch.utils.data import DataLoader


def outlive_signals(loader: DataLoader[Any]) -> None:
    """Lets the loader's workers go on when a signal reaches a whole group of processes.

    torchrun, a terminal and `scancel` send it to all; a worker that dies of it fails the step that the run
    wants to finish. The second SIGTERM ends a worker: by that torch removes one that is stuck.
    """
    loader.worker_init_fn = partial(_begin, loader.worker_init_fn)


def _begin(then: Callable[[int], None] | None, worker: int) -> None:
    """Runs in each worker before its first image."""
    signal.signal(signal.SIGTERM, _let_one_pass)
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    if then is not None:
        then(worker)


def _let_one_pass(number: int, frame: Any) -> None:
    signal.signal(number, signal.SIG_DFL)
