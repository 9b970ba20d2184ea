"""tools/sweep.py: prepares a sweep and runs it."""

import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ssod.registry import register_all_modules
from ssod.study.sweep.definition import read_definition
from ssod.study.sweep.driver import STOPPED, Driver
from ssod.study.sweep.executors import make_executor
from ssod.study.sweep.prepare import folder_of, prepared_runs

RETRIES = 2


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
    try:
        with _interruptible():
            register_all_modules()
            definition = read_definition(path)
            place = folder_of(definition, work_dir)
            runs = prepared_runs(definition, place, options or {})
            parameters = {**definition.slurm, **(slurm or {})}
            where = make_executor(executor, place, max_parallel, definition.gpus, parameters)
    except KeyboardInterrupt:
        print("stopped before a run was started: the same command goes on")
        return STOPPED
    try:
        return Driver(definition.name, runs, place, where, retries).run()
    finally:
        where.close()


@contextmanager
def _interruptible() -> Iterator[None]:
    """A block that SIGTERM ends as Ctrl-C does, with a KeyboardInterrupt."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
