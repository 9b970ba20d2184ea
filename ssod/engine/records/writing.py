"""Files of a run that are whole or not there, and errors that name the file they are about."""

import os
import weakref
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ssod.errors import UserError


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """A block that writes to `path`: an OSError of it names the file, which a full disk's does not."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to, moved there when the block ends; removed where it fails.

    For what may be written anew after a power cut: nothing is forced to the disk.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with naming(path):
            yield partial
            os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise


def write_text(path: Path, text: str) -> None:
    """Writes a text file whole or not at all."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def check_out(folder: Path, ours: Collection[str]) -> None:
    """Raises UserError where `folder` is a file, or holds anything whose name is not one of `ours`."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out {folder} is a file: name a folder")
    others = sorted({each.name for each in folder.iterdir()} - set(ours)) if folder.exists() else []
    if others:
        shown = ", ".join(others[:4]) + ", ..." * (len(others) > 4)
        raise UserError(f"--out {folder} holds other files ({shown}): name a new or an empty folder")


def make_folder(folder: Path) -> None:
    """Makes the folder of an `--out`, and those above it; UserError where that can't be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {folder} can't be a folder ({error.strerror}): name another one") from None


def close_in_children(file: Any) -> None:
    """Makes copies of this process close a file as they begin, and so leave its lock to this one.

    Loader workers are such copies, and may outlive this process by seconds.
    """
    opened = weakref.ref(file)
    os.register_at_fork(after_in_child=lambda: _close(opened()))


def _close(file: Any) -> None:
    if file is not None:
        file.close()
