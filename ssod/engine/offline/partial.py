"""The unfinished part of a job: lines added to a file as they are done, so that a kill costs little."""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssod.errors import UserError

_WORDS = {
    "split_sha256": "other images",
    "checkpoint_sha256": "another checkpoint",
    "config_sha256": "another detector or test pipeline",
}
SYNC_SECONDS = 5.0  # a lost machine, unlike a killed process, costs what came after the last fsync


class PartialFile:
    """`<output>.partial-<rank>`: a header, then a line for each finished piece of the output.

    header: what the pieces depend on; pieces with another header are refused. Every process of a run writes
    a file of its own and reads all, those of an earlier run with more processes, too.
    """

    def __init__(self, out: Path, header: Mapping[str, Any], rank: int = 0) -> None:
        self.out = out
        self.header = dict(header)
        self.path = out.with_name(f"{out.name}.partial-{rank}")
        self._synced = 0.0
        self._file: Any = None

    def read(self) -> list[dict[str, Any]]:
        """The finished pieces; UserError where they were begun with another header."""
        pieces: list[dict[str, Any]] = []
        for path in partial_files(self.out):
            lines, _ = _whole_lines(path)
            if lines and lines[0] != self.header:
                names = sorted(_differences(lines[0], self.header)) or ["settings"]
                what = ", ".join(_WORDS.get(name, f"another {name}") for name in names)
                raise UserError(f"{path} was begun with {what}: remove it to begin anew")
            pieces += lines[1:]
        return pieces

    def open(self) -> None:
        """Opens this process's file behind its last whole line."""
        lines, size = _whole_lines(self.path) if self.path.exists() else ([], 0)
        self._file = self.path.open("ab")
        self._file.truncate(size)
        if not lines:
            self.add(self.header)

    def add(self, piece: Mapping[str, Any]) -> None:
        """The piece is safe from a kill when this returns, and from a power cut after a few seconds."""
        self._file.write(json.dumps(piece).encode() + b"\n")
        self._file.flush()
        if time.perf_counter() - self._synced >= SYNC_SECONDS:
            os.fsync(self._file.fileno())
            self._synced = time.perf_counter()

    def close(self) -> None:
        """Closes the file, all of it on disk."""
        os.fsync(self._file.fileno())
        self._file.close()


def partial_files(out: Path) -> list[Path]:
    """The partial files of an output, of all processes."""
    return sorted(out.parent.glob(f"{out.name}.partial-*"))


def remove_partial_files(out: Path) -> None:
    """Removes what an output was made of."""
    for path in partial_files(out):
        path.unlink()


def _differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> set[str]:
    """The names of what differs, `provenance.min_score` without its parent."""
    found: set[str] = set()
    for name in first.keys() | second.keys():
        one, other = first.get(name), second.get(name)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            found |= _differences(one, other)
        elif one != other:
            found.add(name)
    return found


def _whole_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The lines up to the first that a kill or a power cut spoilt, and how many bytes they take."""
    lines: list[dict[str, Any]] = []
    size = 0
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            content = json.loads(line)
        except ValueError:
            break
        if not line.endswith(b"\n") or not isinstance(content, dict):
            break
        lines.append(content)
        size += len(line)
    return lines, size
