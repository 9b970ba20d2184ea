"""Stopping at a signal: after the step that is under way, with a checkpoint written."""

import signal
import threading
from typing import Any

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.hooks import Hook

from ssod.engine.loops import StopRequested


class StopSignal(Hook):  # type: ignore[misc]
    """Ends training after the step in which SIGINT or SIGTERM came; a second ends it at once."""

    priority = "LOWEST"

    def __init__(self, interval: int = 10) -> None:
        self.interval = interval
        self.received = False
        self.stopped = False
        self.before: dict[int, Any] = {}

    def listen(self) -> None:
        """Takes the signals over; only a main thread can."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.before[number] = signal.signal(number, self._receive)

    def ignore(self) -> None:
        """Gives the signals back."""
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}

    def agreed(self) -> bool:
        """Whether a signal came to any process; all of them must ask at the same place."""
        if get_world_size() > 1:
            flag = torch.tensor(int(self.received))
            all_reduce(flag)  # mmengine's: takes the flag to where the backend wants it, and back
            self.received = bool(flag)  # sync: only with several processes, and they ask seldom
        return self.received

    def _receive(self, number: int, frame: Any) -> None:
        self.received = True
        self.ignore()  # whoever repeats it doesn't want to wait for a checkpoint

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Stops the loop; several processes agree on the step every `interval` iterations."""
        if get_world_size() > 1 and (runner.iter + 1) % self.interval:
            return
        if self.agreed():
            self.stopped = runner.train_loop.stop_training = True

    def after_val_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Leaves a validation at once; the resumed run makes up for it."""
        if self.received and get_world_size() == 1:
            self.stopped = True
            raise StopRequested
