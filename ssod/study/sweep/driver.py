"""The loop over a sweep's runs: what is missing, so many at once, until all is done, failed or stopped."""

import signal
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ssod.errors import UserError
from ssod.study.sweep import state
from ssod.study.sweep.executors import Executor
from ssod.study.sweep.jobs import Job
from ssod.study.sweep.plan import Run
from ssod.study.sweep.prepare import config_path, write_place
from ssod.study.sweep.progress import progress
from ssod.study.sweep.state import alone
from ssod.study.sweep.table import Board, Row

LOOK_EVERY = 0.5  # seconds
HELD_FOR = 30.0  # seconds until a run is tried again that a training outside of any sweep has locked
SETTLED = ("done", "failed")
STOPPED = 75


@dataclass
class Work:
    """What the driver knows of a run.

    handle: the executor's, of the attempt `token`, which began at iteration `begun_at` · failures, error: of
    this call · rests_until: when to try again, on the clock of time.monotonic.
    """

    run: Run
    row: Row
    handle: Any = None
    token: str = ""
    begun_at: int = 0
    failures: int = 0
    error: str = ""
    rests_until: float = 0.0


class Driver:
    """The loop: collect what ended, start what fits, show how far it is."""

    def __init__(
        self, name: str, runs: Sequence[Run], work_dir: Path, executor: Executor, retries: int
    ) -> None:
        self.name, self.work_dir, self.executor, self.retries = name, work_dir, executor, retries
        self.works = [Work(run, Row(run.name, run.total, run.folder)) for run in runs]
        self.board = Board(f"sweep {name}", [work.row for work in self.works], work_dir)
        self.signals = 0  # Ctrl-C and SIGTERM so far
        self.stopping = False

    def run(self) -> int:
        """The exit code."""
        with self._listening(), self.board.shown(not self.executor.in_process):
            for work in self.works:
                self._look(work)
            while not self._finished():
                self._collect()
                if not self.signals:
                    self._start()
                elif self._stop():
                    break
                self.board.update()
                if not self._finished() and not self.executor.in_process:
                    time.sleep(LOOK_EVERY)
            self.board.update()
        self.board.final()
        states = [work.row.state for work in self.works]
        if set(states) <= set(SETTLED):
            return 1 if "failed" in states else 0
        done = sum(each in SETTLED for each in states)
        self.board.say(f"stopped with {done} of {len(states)} runs done or failed: the same command goes on")
        return STOPPED

    def _finished(self) -> bool:
        """Whether all runs are settled and no job is left, which may have some tidying to do."""
        return all(work.row.state in SETTLED and work.handle is None for work in self.works)

    # ------------------------------------------------------------ signals

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """A block in which Ctrl-C and SIGTERM are counted."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self._receive) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _receive(self, number: int, frame: Any) -> None:
        self.signals += 1

    def _stop(self) -> bool:
        """Has the jobs stop, once; whether none is left, or a further signal says not to wait for them."""
        active = [work for work in self.works if work.handle is not None]
        if not self.stopping:
            self.stopping, self.signals = True, 1
            self.board.say(
                f"stopping: {len(active)} jobs write a checkpoint (once more: don't wait for them)"
            )
            self.executor.stop([work.handle for work in active])
        for work in self.works:
            if work.handle is None and work.row.state not in SETTLED:
                work.row.state = "stopped" if work.row.progress.status else "waiting"
        return not active or self.signals > 1

    # ------------------------------------------------------------ jobs

    def _look(self, work: Work) -> None:
        """Reads the run's folder, and says where it stands."""
        run, row = work.run, work.row
        seen = progress(run.folder, run.total)
        row.progress = replace(seen, error=work.error or seen.error)
        if seen.status == "done":
            row.state = "done"
        elif work.handle is not None:
            row.state = "running" if state.has_begun(run.folder, work.token) else "starting"
        elif row.state != "failed":
            held = state.is_claimed(run.folder) or time.monotonic() < work.rests_until
            row.state = "held by another" if held else "waiting"

    def _collect(self) -> None:
        """Takes in what ended, and looks at what goes on."""
        for work in self.works:
            if work.row.state in SETTLED and work.handle is None:
                continue
            if work.handle is not None and self.executor.over(work.handle):
                work.handle = None
                self._take(work, state.ending(work.run.folder, work.token))
            self._look(work)

    def _take(self, work: Work, end: Mapping[str, Any]) -> None:
        """What an attempt's end means: again, or for the last time."""
        status = end["status"]
        if status == "held":
            work.rests_until = time.monotonic() + (0 if state.is_claimed(work.run.folder) else HELD_FOR)
        if state.is_done(work.run.folder) or status in ("done", "held"):
            return
        if status == "stopped":
            self.signals += self.executor.in_process  # then the signal was for this process
            if self.signals or progress(work.run.folder, work.run.total).iteration > work.begun_at:
                return
            end = {"error": "stopped by a signal before it came any further"}
        work.failures += 1
        work.error = str(end.get("error") or status)
        if status == "refused" or work.failures > self.retries:
            work.row.state = "failed"
        elif not self.signals:
            self.board.say(f"{work.run.name}: {work.error}; again ({work.failures} of {self.retries})")

    def _start(self) -> None:
        """Starts what waits, as far as there is room."""
        active = sum(work.handle is not None for work in self.works)
        todo = [work for work in self.works if work.row.state == "waiting"]
        todo = todo[: max(self.executor.room(active), 0)]
        todo = [work for work in todo if self._has_a_folder(work)]
        if not todo:
            return
        for work in todo:
            work.token, work.begun_at = uuid.uuid4().hex[:12], work.row.progress.iteration
            work.row.state = "starting"
        self.board.update()
        jobs = [
            Job(str(work.run.folder), str(config_path(self.work_dir, work.run)), work.token) for work in todo
        ]
        for work, handle in zip(todo, self.executor.start(jobs), strict=True):
            work.handle = handle

    def _has_a_folder(self, work: Work) -> bool:
        """Makes the run's folder and says in it which run that is; where it can't, the run has failed."""
        try:
            work.run.folder.mkdir(parents=True, exist_ok=True)
            with alone(self.work_dir):
                write_place(work.run, self.name)
        except (OSError, UserError) as error:
            work.error = f"{work.run.folder} can't be written: {error}"
            work.row.progress = replace(work.row.progress, error=work.error)
            work.row.state = "failed"
            return False
        return True
