"""Runs a sweep: what is missing, at most so much at once, until all is done, failed or stopped."""

import signal
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ssod.engine.result import write_json
from ssod.registry import register_all_modules
from ssod.study.sweep import state
from ssod.study.sweep.definition import read_definition
from ssod.study.sweep.executors import Debug, Local, Slurm, make_executor
from ssod.study.sweep.jobs import Job
from ssod.study.sweep.plan import Run
from ssod.study.sweep.prepare import config_path, folder_of, prepared_runs
from ssod.study.sweep.table import Board, Row

RETRIES = 2
LOOK_EVERY = 0.5  # seconds
SETTLED = ("done", "failed")
STOPPED = 75


def sweep(
    path: str | Path,
    executor: str = "local",
    max_parallel: int | None = None,
    work_dir: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
    retries: int = RETRIES,
    slurm: Mapping[str, Any] | None = None,
) -> int:
    """Runs what a sweep file asks for and isn't done; 0 if all is done, 1 if some failed, 75 if stopped.

    options: `--cfg-options`, of every run · retries: how often a call tries a run again that failed; what
    the user's input is to blame for is not tried again · slurm: submitit's parameters beside the file's.
    Raises UserError for a mistake in the sweep, before anything runs.
    """
    register_all_modules()
    definition = read_definition(path)
    place = folder_of(definition, work_dir)
    runs = prepared_runs(definition, place, options or {})
    where = make_executor(
        executor, place, max_parallel, definition.gpus, {**definition.slurm, **(slurm or {})}
    )
    try:
        return Driver(definition.name, runs, place, where, retries).run()
    finally:
        where.close()


@dataclass
class Work:
    """What the driver knows of a run. handle: the executor's, of the attempt `token`."""

    run: Run
    row: Row
    handle: Any = None
    token: str = ""
    failures: int = 0
    error: str = ""


class Driver:
    """The loop: collect what ended, start what fits, show how far it is."""

    def __init__(
        self, name: str, runs: Sequence[Run], work_dir: Path, executor: Debug | Local | Slurm, retries: int
    ) -> None:
        self.name, self.work_dir, self.executor, self.retries = name, work_dir, executor, retries
        self.works = [Work(run, Row(run.name, run.total, run.folder)) for run in runs]
        self.board = Board(f"sweep {name}", [work.row for work in self.works], work_dir)
        self.signals = 0

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
                if not self._finished():
                    time.sleep(LOOK_EVERY)
            self.board.update()
        self.board.final()
        states = {work.row.state for work in self.works}
        if states <= set(SETTLED):
            return 1 if "failed" in states else 0
        self.board.say(
            f"stopped: the same command goes on, {self._count(*SETTLED)} of {len(self.works)} are done"
        )
        return STOPPED

    def _count(self, *states: str) -> int:
        return sum(work.row.state in states for work in self.works)

    def _finished(self) -> bool:
        return all(work.row.state in SETTLED for work in self.works)

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
        """Has the jobs stop, once; whether none is left, or somebody does not want to wait."""
        active = [work for work in self.works if work.handle is not None]
        if self.signals < 1000:
            self.board.say(f"stopping: {len(active)} jobs write a checkpoint (once more: don't wait)")
            self.executor.stop([work.handle for work in active])
            self.signals += 1000
        for work in self.works:
            if work.handle is None and work.row.state not in SETTLED:
                work.row.state = "stopped" if work.row.progress.status else "waiting"
        return not active or self.signals > 1001

    # ------------------------------------------------------------ jobs

    def _look(self, work: Work) -> None:
        """Reads the run's folder, and says where it stands."""
        run = work.run
        seen = state.progress(run.folder, run.total)
        work.row.progress = replace(seen, error=work.error or seen.error)
        if work.row.progress.status == "done":
            work.row.state = "done"
        elif work.handle is not None:
            begun = any(line.get("attempt") == work.token for line in state.attempts(run.folder))
            work.row.state = "running" if begun or not isinstance(self.executor, Slurm) else "queued"
        elif work.row.state != "failed":
            held = state.is_claimed(run.folder)
            work.row.state = "held by another" if held else "waiting"

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
        if state.is_done(work.run.folder) or status in ("done", "held"):
            return
        if status == "stopped":
            self.signals += self.executor.in_process  # the signal was for this process
            return
        work.failures += 1
        work.error = str(end.get("error") or status)
        again = status != "refused" and work.failures <= self.retries and not self.signals
        if again:
            self.board.say(f"{work.run.name}: {work.error}; again ({work.failures} of {self.retries})")
        else:
            work.row.state = "failed"

    def _start(self) -> None:
        """Starts what waits, as far as there is room."""
        active = sum(work.handle is not None for work in self.works)
        todo = [work for work in self.works if work.row.state == "waiting" and work.handle is None]
        todo = todo[: max(self.executor.room(active), 0)]
        if not todo:
            return
        jobs = []
        for work in todo:
            work.run.folder.mkdir(parents=True, exist_ok=True)
            write_json(work.run.folder / "run.json", work.run.describe(self.name))
            work.token = uuid.uuid4().hex[:12]
            config = config_path(self.work_dir, work.run)
            jobs.append(Job(str(work.run.folder), str(config), work.token))
        for work, handle in zip(todo, self.executor.start(jobs), strict=True):
            work.handle = handle
            work.row.state = "running"
