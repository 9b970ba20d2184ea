"""Images that lie in two parts of the data, found by content: what was trained on must not be tested on."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from ssod.data import file_cache
from ssod.data.image_index import Records

_PIECE = 4096  # bytes from the middle of a file: images that differ, differ there
_DIGEST = 4  # of 64 bits
File = tuple[str, str]  # part, path


class Leak(NamedTuple):
    """One image in two parts: `other_path` of `other_part` has the bytes of `path` of `part`."""

    part: str
    path: str
    other_part: str
    other_path: str


def find_leaks(parts: Mapping[str, Sequence[str]]) -> list[Leak]:
    """The images of each part whose bytes also lie in another one; the earlier part is named first.

    parts: the paths of the images of each, such as `{"labeled": [...], "unlabeled": [...], "val": [...]}`.
    Copies within a part are none of this function's business, nor are files that are missing or empty.

    Every file's length is asked for. Where those of two parts agree, 4 KiB from the middle are read, and the
    whole files where those agree, too. Both digests are kept in the cache (ssod/data/file_cache.py).
    """
    by_node: dict[Any, list[File]] = defaultdict(list)
    stamps: dict[str, tuple[int, int]] = {}
    for part, paths in parts.items():
        for path in paths:
            with suppress(OSError):  # a missing file is found when it is read
                status = os.stat(path)
                if status.st_size:
                    stamps[path] = (status.st_size, status.st_mtime_ns)
                    by_node[(status.st_dev, status.st_ino or path)].append((part, path))
    # One file under two names needs no reading; each file goes on with all of its parts.
    by_size: dict[Any, list[list[File]]] = defaultdict(list)
    for files in by_node.values():
        by_size[stamps[files[0][1]][0]].append(files)
    same = list(by_size.values())
    for kind, whole in (("pieces", False), ("digests", True)):
        same = _equal(same, stamps, kind, whole)
    return [
        leak for group in same for leak in _pairs([file for files in group for file in files], list(parts))
    ]


def _equal(
    groups: Iterable[list[list[File]]], stamps: Mapping[str, tuple[int, int]], kind: str, whole: bool
) -> list[list[list[File]]]:
    """The groups parted by content; those within one part are left out."""
    across = [group for group in groups if len({part for files in group for part, _ in files}) > 1]
    paths = [files[0][1] for group in across if len(group) > 1 for files in group]
    digests = dict(zip(paths, _digests(paths, stamps, kind, whole), strict=True))
    parted: dict[Any, list[list[File]]] = defaultdict(list)
    for number, group in enumerate(across):
        for files in group:
            parted[(number, digests.get(files[0][1]))].append(files)
    return [group for group in parted.values() if len({part for files in group for part, _ in files}) > 1]


def _digests(
    paths: Sequence[str], stamps: Mapping[str, tuple[int, int]], kind: str, whole: bool
) -> list[tuple[int, ...]]:
    """A digest of each file, from the cache where it is known."""
    if not paths:
        return []
    ordered = sorted(paths)
    rows = np.array([stamps[path] for path in ordered], dtype=np.int64)
    file = file_cache.cache_file(kind, "\0".join(os.path.abspath(path) for path in ordered))
    values, known = file_cache.recall(file, ordered, rows, _DIGEST)
    unknown = np.flatnonzero(~known).tolist()
    for place in unknown:
        values[place], known[place] = _digest(ordered[place], rows[place, 0], whole)
    if unknown:
        read = np.flatnonzero(known)  # the others are tried again next time
        file_cache.keep(file, [ordered[place] for place in read], rows[read], values[read])
    found = {path: tuple(row) for path, row in zip(ordered, values.tolist(), strict=True)}
    return [found[path] for path in paths]


def _digest(path: str, length: int, whole: bool) -> tuple[np.ndarray[Any, Any], bool]:
    """256 bits of SHA-256 as four numbers, and whether they are the file's, else its name's."""
    try:
        with open(path, "rb") as file:
            if not whole:
                file.seek(max(int(length) - _PIECE, 0) // 2)
            content, can_be_read = file.read(-1 if whole else _PIECE), True
    except OSError:
        content, can_be_read = b"unreadable " + os.fsencode(path), False
    return np.frombuffer(hashlib.sha256(content).digest(), dtype=np.int64), can_be_read


def _pairs(files: Sequence[File], order: Sequence[str]) -> list[Leak]:
    """A leak for each path of a later part, beside the first path of the earlier one."""
    of: dict[str, list[str]] = defaultdict(list)
    for part, path in files:
        of[part].append(path)
    return [
        Leak(earlier, of[earlier][0], later, path)
        for earlier, later in combinations([part for part in order if part in of], 2)
        for path in of[later]
    ]


def paths_of(dataset: Any) -> list[str]:
    """Where the images of a dataset of ours or mmdet's lie; empty for one that has no paths."""
    records = getattr(dataset, "data_list", None)
    if isinstance(records, Records):
        return records.paths()
    if not hasattr(dataset, "get_data_info"):
        return []
    infos = (dataset.get_data_info(index) for index in range(len(dataset)))
    return [info["img_path"] for info in infos if "img_path" in info]
