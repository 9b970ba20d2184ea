"""Stopping at a signal: after a step, all processes after the same, with a checkpoint written."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.hooks import Hook
from torch import distributed

from ssod.engine.loops import StopRequested
from ssod.engine.optim import at_optimizer_step
from ssod.engine.processes import GRACE, PATIENCE

# Ctrl-C; what kill, torchrun and a job's end send; a terminal that closes, also passed on by torchrun; what
# SLURM sends before the end, if asked to.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


class StopSignal(Hook):  # type: ignore[misc]
    """Ends training after the step in which a signal came; a second signal ends the process at once.

    Several processes vote in each step, whether a signal came to any of them: the vote is sent as the step
    begins and counted at its end, over gloo, so neither a device nor the host waits for it. All stop after
    the step that follows the signal at the latest.

    timeout: seconds that a vote may take, less a grace: see processes.py.
    """

    priority = "LOWEST"

    def __init__(self, timeout: float = PATIENCE) -> None:
        self.timeout = timeout
        self.received = False
        self.stopped = False
        self.before: dict[int, Any] = {}
        self.group: Any = None
        self.vote: tuple[torch.Tensor, Any] | None = None
        self.votes_left = 0  # of a validation

    @contextmanager
    def listening(self) -> Iterator["StopSignal"]:
        """A block in which the signals come here; only in a main thread, and once if blocks are nested."""
        if self.before or self.received or threading.current_thread() is not threading.main_thread():
            yield self
            return
        for number in SIGNALS:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup's stays ignored
                self.before[number] = signal.signal(number, self._receive)
        try:
            yield self
        finally:
            self._give_back()

    def _give_back(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}

    def _receive(self, number: int, frame: Any) -> None:
        self.received = True
        self._give_back()  # whoever repeats it doesn't want to wait for a checkpoint

    def agreed(self) -> bool:
        """Whether a signal came to any process; all of them must ask at the same place, and wait."""
        if get_world_size() == 1:
            return self.received
        flag = torch.tensor(int(self.received))
        all_reduce(flag)  # mmengine's: takes the flag to where the backend wants it, and back
        return bool(flag)  # sync: only with several processes, and they ask seldom

    def before_train(self, runner: Any) -> None:
        """Opens a line of its own for the votes."""
        if get_world_size() > 1 and self.group is None:
            limit = timedelta(seconds=self.timeout + GRACE)
            self.group = distributed.new_group(backend="gloo", timeout=limit)

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Sends this process's vote."""
        self._send()

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Stops the loop, where the optimizer has stepped and no gradient waits for more."""
        if self._counted() and at_optimizer_step(runner):
            self.stopped = runner.train_loop.stop_training = True

    def before_val_epoch(self, runner: Any) -> None:
        """Notes how often every process can vote: they may have one batch more or less."""
        if self.group is not None:
            count = torch.tensor(len(runner.val_dataloader))
            distributed.all_reduce(count, distributed.ReduceOp.MIN, group=self.group)
            self.votes_left = int(count)

    def after_val_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Leaves a validation at once; the resumed run makes up for it."""
        stop = self._counted()
        self.votes_left -= 1
        if stop:
            self.stopped = True
            raise StopRequested
        if self.votes_left > 0:
            self._send()

    def _send(self) -> None:
        if self.group is not None:
            flag = torch.tensor(int(self.received))
            self.vote = flag, distributed.all_reduce(flag, group=self.group, async_op=True)

    def _counted(self) -> bool:
        """Whether anybody voted to stop; with one process, whether a signal came."""
        if self.group is None:
            return self.received
        vote, self.vote = self.vote, None
        if vote is None:
            return False
        vote[1].wait()
        return bool(vote[0])
