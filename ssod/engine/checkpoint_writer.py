"""Checkpoint files that are whole or not there, written beside training."""

import os
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from ssod.errors import RunError


class CheckpointWriter:
    """Writes checkpoints in a thread, one after the other; training goes on meanwhile.

    What is handed over must be a copy: training changes its tensors. A failure is kept and raised as a
    RunError by the next call of any method, and the file that was there before stays.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._thread: threading.Thread | None = None
        self._failure: RunError | None = None

    def submit(
        self, content: dict[str, Any], names: Sequence[str], then: Callable[[], None] | None = None
    ) -> None:
        """Begins to write one content under one or more names, when the write before is done.

        then: called in the thread once the files are in place.
        """
        self.wait()
        # A daemon: who sends a second signal does not want to wait, and half a file harms nobody.
        self._thread = threading.Thread(target=self._work, args=(content, names, then), daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Returns when everything handed over is on disk."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()

    def check(self) -> None:
        """Raises the RunError of a write that failed, once."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _work(self, content: dict[str, Any], names: Sequence[str], then: Callable[[], None] | None) -> None:
        try:
            write(content, self.folder, names)
            if then is not None:
                then()
        except Exception as error:
            cause = _first_os_error(error)
            reason = cause.strerror if isinstance(cause, OSError) else " ".join(str(error).split())[:200]
            path = self.folder / names[0]
            left = "the one from before is as it was" if path.exists() else "there was none before"
            self._failure = RunError(
                f"checkpoint {path} could not be written ({reason}); {left}; make room, or give the folder "
                "back, then run again with --resume"
            )


def write(content: dict[str, Any], folder: Path, names: Sequence[str]) -> None:
    """Writes the content under all names; each is replaced by a whole file that is on disk, or not at all."""
    folder.mkdir(exist_ok=True)
    partial = folder / f".{names[0]}.partial"
    try:
        with partial.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        for name in names[1:]:
            link(partial, folder / name)
        os.replace(partial, folder / names[0])
        _sync(folder)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def link(source: Path, name: Path) -> None:
    """Puts the file under a second name, without a second copy where the file system can."""
    partial = name.with_name(f".{name.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        os.link(source, partial)
    except OSError:  # no hard links here
        shutil.copyfile(source, partial)
    os.replace(partial, name)


def _sync(folder: Path) -> None:
    """Puts the folder's own entries on disk: a rename is not there after a power cut otherwise."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _first_os_error(error: BaseException | None) -> BaseException | None:
    """The system's own error, where torch's writer hides it behind another; else None."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error
