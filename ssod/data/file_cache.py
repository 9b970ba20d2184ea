"""Numbers about files, kept from run to run: a row holds as long as the file's length and time of change do.

Where: the folder `$SSOD_CACHE`, else `$XDG_CACHE_HOME/ssod`, else `~/.cache/ssod`, and for a user without a
home one in the temporary folder. It may be removed at any time. A place that can't be written, and a damaged
file in it, only cost the work again.
"""

import fcntl
import hashlib
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

Table = npt.NDArray[np.int64]
_VERSION = 1
_NAMES = ("version", "paths", "stamps", "values")


def cache_folder() -> Path:
    """The folder of the cache, which may not exist."""
    own, shared = os.environ.get("SSOD_CACHE"), os.environ.get("XDG_CACHE_HOME")
    if own:
        return Path(own)
    try:
        return Path(shared or Path.home() / ".cache") / "ssod"
    except RuntimeError:  # a user without a home, as in some containers
        return Path(tempfile.gettempdir()) / f"ssod-{os.getuid()}"


def cache_file(kind: str, key: str) -> Path:
    """The file for one kind of numbers about one set of files, such as `sizes-0f3a....npz`."""
    return cache_folder() / f"{kind}-{hashlib.sha256(os.fsencode(key)).hexdigest()[:24]}.npz"


def recall(
    file: Path, paths: Sequence[str], stamps: Table, columns: int
) -> tuple[Table, npt.NDArray[np.bool_]]:
    """The kept rows (N, columns) for N files, and which of them are known (N,).

    stamps (N, 2): each file's length in bytes and its time of change in ns. A row is known if both are as
    they were when it was kept.
    """
    values, known = np.zeros((len(paths), columns), np.int64), np.zeros(len(paths), np.bool_)
    kept = _read(file, columns)
    if kept is None:
        return values, known
    blob, old_stamps, old_values = kept
    if blob == _join(paths):  # nothing came or went: no row by row
        return old_values, (old_stamps == stamps).all(1)
    places = {path: place for place, path in enumerate(_split(blob))}
    found = np.array([places.get(path, -1) for path in paths], dtype=np.int64)
    there = np.flatnonzero(found >= 0)
    same = (old_stamps[found[there]] == stamps[there]).all(1)
    values[there], known[there] = old_values[found[there]], same
    return values, known


def keep(file: Path, paths: Sequence[str], stamps: Table, values: Table) -> None:
    """Writes the rows, whole or not at all; says in a warning where that is not possible."""
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as stream:
            blob = np.frombuffer(_join(paths), dtype=np.uint8)
            np.savez(stream, version=np.array(_VERSION), paths=blob, stamps=stamps, values=values)
        os.replace(partial, file)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        warnings.warn(
            f"cache {file} can't be written ({error.strerror}): the same files are read again next time; set "
            "SSOD_CACHE to a folder that can be written",
            stacklevel=2,
        )


@contextmanager
def turn(file: Path) -> Iterator[None]:
    """A block that one process at a time runs for a file of the cache, so that the others find it filled.

    No collective call: a dataset may be built by the first process alone. Without a lock (a read-only place,
    some network file systems) all of them do the work.
    """
    lock = None
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = open(file.with_suffix(".lock"), "w")  # noqa: SIM115  closed below
        fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if lock is not None:
            lock.close()


def _read(file: Path, columns: int) -> tuple[bytes, Table, Table] | None:
    """Paths, stamps and values of a file; None if there is none, or none that can be trusted."""
    try:
        with np.load(file, allow_pickle=False) as content:
            version, paths, stamps, values = (content[name] for name in _NAMES)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, NotImplementedError, RuntimeError):
        # A zip's checksums find damage; a damaged header asks for a password or an unknown compression.
        return None
    count = _count(blob := paths.tobytes())
    sound = stamps.shape == (count, 2) and values.shape == (count, columns)
    return (blob, stamps, values) if sound and version == _VERSION else None


def _join(paths: Sequence[str]) -> bytes:
    return os.fsencode("\0".join(paths))


def _split(blob: bytes) -> list[str]:
    return os.fsdecode(blob).split("\0") if blob else []


def _count(blob: bytes) -> int:
    return blob.count(b"\0") + 1 if blob else 0
