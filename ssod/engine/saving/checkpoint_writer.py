"""Checkpoint files that are whole or not there, written beside training."""

import os
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from ssod.engine.records.writing import naming, replacing


class CheckpointWriter:
    """Writes checkpoints in a thread, one after the other; training goes on meanwhile.

    What is handed over must be a copy: training changes its tensors. A failure is kept and raised by the next
    call of any method, and the file that was there before stays.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None

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
        """Raises what a write failed of, once."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _work(self, content: dict[str, Any], names: Sequence[str], then: Callable[[], None] | None) -> None:
        try:
            write(content, self.folder, names)
            if then is not None:
                then()
        except Exception as error:
            self._failure = error


def write(content: dict[str, Any], folder: Path, names: Sequence[str]) -> None:
    """Writes the content under all names; each is replaced by a whole file that is on disk, or not at all.

    Raises OSError, which names the file, where there is no room, no permission, or no folder any more.
    """
    path = folder / names[0]
    with replacing(path) as partial:
        folder.mkdir(exist_ok=True)
        with partial.open("wb") as file:
            _save(content, file)
            file.flush()
            os.fsync(file.fileno())
        for name in names[1:]:
            link(partial, folder / name)
    with naming(path):
        _sync(folder)


def link(source: Path, name: Path) -> None:
    """Puts the file under a second name, without a second copy where the file system can."""
    with replacing(name) as partial:
        partial.unlink(missing_ok=True)
        try:
            os.link(source, partial)
        except OSError:  # no hard links here
            shutil.copyfile(source, partial)
            _sync(partial)


def _save(content: dict[str, Any], file: Any) -> None:
    """torch.save, whose error is the system's own and not the one that torch's writer puts before it."""
    try:
        torch.save(content, file)
    except RuntimeError as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__cause__ or cause.__context__
        if cause is None:
            raise
        raise OSError(cause.errno, cause.strerror) from error


def _sync(path: Path) -> None:
    """Puts a file on disk, or a folder's own entries: a rename is not there after a power cut otherwise."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
