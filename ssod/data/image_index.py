"""Sizes of many images from their headers, in a few flat arrays that loader workers share uncopied."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from ssod.data import file_cache
from ssod.data.decode import BadImage, image_size, stat_fault
from ssod.data.image_sources import Listing
from ssod.errors import BadImageError

IntArray = npt.NDArray[np.int64]
# Headers are read by a few threads: on a disk with a cold cache they wait at the same time. On a warm one
# more of them would only get into each other's way.
_THREADS = 4
_CHUNK = 500
_POSITIVE = 2**63 - 1


class Records(Sequence[dict[str, Any]]):
    """The records of images, each made when it is asked for: `img_path, img_id, height, width`.

    A million of them are four arrays and no Python object: the path and 24 bytes each, and nothing that a
    loader worker's reference counts would copy.
    """

    def __init__(self, paths: Sequence[str], ids: Sequence[Any], sizes: npt.NDArray[Any]) -> None:
        encoded = [os.fsencode(path) for path in paths]
        self._text = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        self._ends = np.cumsum([0, *map(len, encoded)])
        whole = all(type(each) is int for each in ids)
        self.ids = np.array(ids, dtype=np.int64 if whole else object)
        self.sizes = sizes.astype(np.int32)  # (N, 2): width, height

    def __len__(self) -> int:
        return len(self.ids)

    def path(self, index: int) -> str:
        """Where an image lies."""
        return os.fsdecode(self._text[self._ends[index] : self._ends[index + 1]].tobytes())

    def paths(self) -> list[str]:
        """Where all of them lie."""
        text, ends = self._text.tobytes(), self._ends.tolist()
        return [os.fsdecode(text[begin:end]) for begin, end in pairwise(ends)]

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        index = range(len(self))[index]
        width, height = self.sizes[index].tolist()
        given = self.ids[index]
        return dict(
            img_path=self.path(index),
            img_id=int(given) if self.ids.dtype == np.int64 else given,
            height=height,
            width=width,
        )

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[index] for index in range(len(self)))

    def take(self, indices: IntArray) -> "Records":
        """The records at the given places, in that order; those below 0 count from the end."""
        indices = np.arange(len(self))[indices]
        if len(indices) == len(self) and (indices == np.arange(len(self))).all():
            return self
        return Records([self.path(i) for i in indices], self.ids[indices].tolist(), self.sizes[indices])


@dataclass(frozen=True)
class Index:
    """Images whose header could be read, and the files that are none."""

    records: Records
    left_out: tuple[BadImage, ...]


def index_images(listing: Listing, key: str) -> Index:
    """The records of a listing with sizes as displayed; a file that is reached twice counts once.

    key: names the set in the cache of sizes. Each call asks for every file's status, and reads the headers of
    those that are new or changed.
    """
    paths = listing.paths()
    stamps, nodes, faults = _stat(paths)
    first = _first_of_each(nodes)
    file = file_cache.cache_file("sizes", key)
    with file_cache.turn(file):
        sizes, known = file_cache.recall(file, paths, stamps, 2)
        wanted = [int(place) for place in np.flatnonzero(~known & first) if int(place) not in faults]
        if wanted:
            for place, found in zip(wanted, _sizes_of([paths[place] for place in wanted]), strict=True):
                if isinstance(found, str):
                    faults[place] = found
                else:
                    sizes[place], known[place] = found, True
            whole = np.flatnonzero(known)
            file_cache.keep(file, [paths[place] for place in whole], stamps[whole], sizes[whole])
    for place in faults:
        known[place] = False
    kept = np.flatnonzero(known & first)
    if len(kept) < len(paths):
        paths_kept, ids = [paths[place] for place in kept], [listing.ids[place] for place in kept]
    else:
        paths_kept, ids = paths, list(listing.ids)
    left_out = tuple(BadImage(paths[place], faults[place]) for place in sorted(faults) if first[place])
    return Index(Records(paths_kept, ids, sizes[kept]), left_out)


def _stat(paths: Sequence[str]) -> tuple[IntArray, IntArray, dict[int, str]]:
    """For each file (length, time of change), (N, 2), and (device, node), (N, 2); and the faults by place."""
    rows, faults = [], {}
    for place, path in enumerate(paths):
        try:
            status = os.stat(path)
        except OSError as error:
            faults[place] = str(error.strerror)
            rows.append((0, 0, 0, -1 - place))
            continue
        node = status.st_ino & _POSITIVE or -1 - place  # some file systems give none
        rows.append((status.st_size, status.st_mtime_ns, status.st_dev & _POSITIVE, node))
        fault = stat_fault(status)
        if fault is not None:
            faults[place] = fault
    table = np.array(rows, dtype=np.int64).reshape(-1, 4)
    return table[:, :2], table[:, 2:], faults


def _first_of_each(nodes: IntArray) -> npt.NDArray[np.bool_]:
    """Which files are reached for the first time (N,), by device and node: two names of one file are one."""
    first = np.zeros(len(nodes), np.bool_)
    order = np.lexsort((np.arange(len(nodes)), nodes[:, 1], nodes[:, 0]))
    ordered = nodes[order]
    new = np.ones(len(nodes), np.bool_)
    new[1:] = (ordered[1:] != ordered[:-1]).any(1)
    first[order[new]] = True
    return first


def _sizes_of(paths: Sequence[str]) -> Iterator[tuple[int, int] | str]:
    """(width, height) of each file, or its fault."""
    chunks = [paths[start : start + _CHUNK] for start in range(0, len(paths), _CHUNK)]
    with ThreadPoolExecutor(_THREADS) as pool:
        for found in pool.map(_sizes_of_some, chunks):
            yield from found


def _sizes_of_some(paths: Sequence[str]) -> list[tuple[int, int] | str]:
    found: list[tuple[int, int] | str] = []
    for path in paths:
        try:
            found.append(image_size(path))
        except BadImageError as error:
            found.append(error.reason)
    return found
