"""Watching the processes of a run: one that dies or hangs ends all of them, with one line that names it."""

import os
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from mmengine.dist import barrier, get_rank, get_world_size
from mmengine.hooks import Hook

from ssod.engine.faults.failure_kinds import is_lost_contact
from ssod.engine.faults.signs import DONE, LOST, Board, Sign, behind, ended, silent, whereabouts
from ssod.engine.processes import on_main
from ssod.errors import RunError, UserError

LONGEST_INTERVAL = 2.0  # seconds between two signs of life
DEAD_AFTER = 30.0  # seconds at a standstill after which the silent count as dead
ADVICE = "; the last checkpoint is intact: go on with --resume"


class RankWatch(Hook):  # type: ignore[misc]
    """Tells the other processes where this one is, and ends it when the run stands still.

    A thread puts a `Sign` on the `Board` every `interval` seconds; a step itself sends nothing. Once this
    process has made no progress in training or validation for `timeout` seconds, the thread finds out which
    process is to blame, says so in one line and ends this one with code 1, whatever its main thread waits
    for: an exchange, a GPU, a file system. It does so sooner if another process has ended, or has
    given no sign while this one stood still for `DEAD_AFTER`. Time in which the process itself was stopped
    (SIGSTOP, a suspended job) doesn't count.

    Exchanges have a limit of their own (`start_processes`), a little longer, which holds outside of
    training, too. With gloo they fail in the main thread, at once if the other end is gone; `watched` makes
    the same line of that. With nccl they only fail at their limit, where torch's own watchdog aborts the
    process without a word on the cause (TORCH_NCCL_ASYNC_ERROR_HANDLING, on by default); this thread is
    there before. That follows torch's documentation and was not tried with several GPUs.

    on_hang: called with the RunError before the thread ends the process.
    """

    priority = "VERY_HIGH"

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self.interval = min(LONGEST_INTERVAL, timeout / 10)
        self.on_hang: Callable[[RunError], None] = lambda error: None
        self.sign = Sign(get_rank(), f"{socket.gethostname()}, pid {os.getpid()}")
        self.at = (0, 0, "starting")  # iteration, phase, doing: all at once, another thread reads them
        self.armed = False  # inside of training
        self.silences: list[tuple[Sign, float]] = []  # of each process at a standstill, in seconds
        self.lost = False  # through another process
        self.terminates: Any = None  # what SIGTERM did before it was ignored
        self.board: Board | None = None
        self.closing = threading.Event()
        self.main_thread = threading.get_ident()
        self.thread = threading.Thread(target=self._run, name="rank watch", daemon=True)

    # ------------------------------------------------------------ progress, told by the loop

    def before_train(self, runner: Any) -> None:
        """From here on, standing still counts."""
        self.at, self.armed = (runner.iter, 0, "starting"), True

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """The images of a step are there."""
        self.at = (runner.iter, 1, "in the next step")

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """A step is over."""
        self.at = (runner.iter + 1, 0, "writing or waiting for images")

    def after_val_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """A batch of a validation is over."""
        self.at = (runner.iter, 2 + batch_idx, f"validating, {batch_idx + 1} batches done")

    def after_train(self, runner: Any) -> None:
        """What follows has no steps to count."""
        self.armed = False

    # ------------------------------------------------------------ the thread

    def start(self) -> None:
        """Meets the others: all processes must call it. With one process there is nothing to watch."""
        if get_world_size() == 1:
            return
        board = Board(on_main(lambda: uuid.uuid4().hex), get_world_size())
        board.put(self.sign)
        barrier()
        self.board = board
        self.thread.start()

    def _run(self) -> None:
        """A sign every interval, and the end when it is time."""
        still, last, before = 0.0, self.at, time.monotonic()
        while not self.closing.wait(self.interval):
            now = time.monotonic()
            passed, before = min(now - before, 2 * self.interval), now  # late if the process was stopped
            still = still + passed if self.at is last and self.armed else 0.0
            last = self.at
            connected = self._tell(still)
            if self.armed and still < 2 * self.interval:
                self.silences = []
                continue
            cause = self._cause_after(still, passed, connected)
            # The main thread may know it already, and be on its way out.
            if cause is not None and not self.closing.wait(self.interval):
                self._end_process(cause)

    def _tell(self, still: float, end: str = "") -> bool:
        """Whether a new sign reached the board."""
        iteration, phase, doing = self.at
        where, waits = whereabouts(self.main_thread)
        self.sign = replace(
            self.sign,
            number=self.sign.number + 1,
            iteration=iteration,
            phase=phase,
            doing=doing,
            still=still,
            where=where,
            waits=waits,
            end=end,
        )
        try:
            if self.board is not None:
                self.board.put(self.sign)
        except RuntimeError:
            return False
        return True

    def _cause_after(self, still: float, passed: float, connected: bool) -> str | None:
        """What this process should end for after so many seconds at a standstill; None to wait on."""
        if still >= self.timeout:
            return self.cause() or self._nobody_to_ask()
        if self.board is None or not connected:
            return self._nobody_to_ask() if still >= DEAD_AFTER else None
        try:
            signs = self.board.read()
        except RuntimeError:
            return None
        return ended(signs) or self._long_silent(signs, passed)

    def _long_silent(self, signs: list[Sign], passed: float) -> str | None:
        """A sentence on who has given no sign for `DEAD_AFTER`; passed: seconds since this was last asked.

        Signs come late where Python is busy for seconds in one call (a large file of annotations, say).
        """
        before = self.silences or [(each, 0.0) for each in signs]
        self.silences = [
            (new, seconds + passed if old.number == new.number else 0.0)
            for (old, seconds), new in zip(before, signs, strict=True)
        ]
        dead = [sign for sign, seconds in self.silences if seconds >= DEAD_AFTER]
        return silent(dead, dead) if self.armed else None

    def _end_process(self, cause: str) -> None:
        own = cause.startswith(self.sign.name)
        self._tell(self.sign.still, self.sign.standstill if own else LOST)
        error = RunError(cause + ADVICE)
        try:
            self.on_hang(error)
        finally:
            print(f"error: {error}", file=sys.stderr, flush=True)
            self.linger()
            os._exit(1)

    # ------------------------------------------------------------ the end

    def cause(self) -> str | None:
        """A sentence on who has stopped the run: a process that ended, is silent, or is behind the others.

        Takes three intervals unless one has ended. None where there is one process.
        """
        if self.board is None:
            return None
        try:
            first, until = self.board.read(), time.monotonic() + 3 * self.interval
            while True:
                signs = self.board.read()
                if found := ended(signs):
                    return found
                if time.monotonic() > until:
                    return silent(first, signs) or behind(signs)
                time.sleep(self.interval / 4)
                self._tell(self.sign.still)  # the thread itself may be here
        except RuntimeError:
            return self._nobody_to_ask()

    def _nobody_to_ask(self) -> str:
        """A sentence where the board can't be read."""
        return (
            f"process 0 or torchrun's agent beside it is gone: {self.sign.name} finds no meeting point any "
            f"more, after iteration {self.at[0]}"
        )

    def explain(self, error: BaseException) -> BaseException:
        """The error itself, or the RunError that names the process which made an exchange fail.

        From here on SIGTERM is ignored: torchrun sends it as soon as one process has died, and would cut
        off the last words of the others (which it kills, if need be, 30 s later).
        """
        if self.board is None or not is_lost_contact(error):
            return error
        if threading.current_thread() is threading.main_thread():
            self.terminates = signal.signal(signal.SIGTERM, signal.SIG_IGN)
        cause = self.cause()
        if cause is None:
            return error
        self.lost = True
        return RunError(cause + ADVICE)

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """A block whose errors are explained, before anybody else has a word for them."""
        try:
            yield
        except BaseException as raised:
            error = self.explain(raised)
            if error is raised:
                raise
            raise error from raised

    def end(self, error: BaseException | None = None) -> None:
        """Leaves word of how this process ended, once the thread has stopped."""
        self.closing.set()
        if self.board is not None:
            self.thread.join(4 * self.interval)
            self._tell(self.sign.still, self._last_words(error))
            self.linger()
        if self.terminates is not None:
            signal.signal(signal.SIGTERM, self.terminates)

    def _last_words(self, error: BaseException | None) -> str:
        if error is None or self.lost:
            return LOST if self.lost else DONE
        line = error.one_line if isinstance(error, UserError) else _first_line(error)
        return f"ended after iteration {self.at[0]}: {type(error).__name__}: {line}"

    def linger(self) -> None:
        """Waits until the others have ended, too, if they read their signs from this process."""
        if self.board is None or self.sign.rank != 0 or not self.board.goes_with_the_first:
            return
        until = time.monotonic() + 6 * self.interval
        try:
            while time.monotonic() < until and not all(each.end for each in self.board.read()):
                time.sleep(self.interval / 4)
        except RuntimeError:
            return


@contextmanager
def watched(timeout: float) -> Iterator[RankWatch]:
    """A block in which processes watch each other: RunError names the one that made an exchange fail.

    All processes must enter it. timeout: seconds without progress that end a run, see `RankWatch`.
    """
    watch = RankWatch(timeout)
    watch.start()
    try:
        with watch.explaining():
            yield watch
    except BaseException as error:
        watch.end(error)
        raise
    watch.end()


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")
