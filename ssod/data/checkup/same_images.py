"""Images that two parts share: by path, by content, and nearly, by a perceptual hash."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from ssod.data.checkup.findings import Finding, count, hurts, lies, some
from ssod.data.checkup.parts import TRAINED, Part
from ssod.data.transforms import read_image
from ssod.errors import UserError

MAX_DISTANCE = 6  # bits of 64 in which two difference hashes of one picture may differ
Pair = tuple[str, str]  # paths of one image, in the first and in the second part
Pairs = dict[tuple[str, str], list[Pair]]  # by the names of the two parts


def same_content(parts: Mapping[str, Sequence[str]]) -> Pairs:
    """The pairs of files that are one file, or equal byte for byte, in two parts; {part: paths}.

    Bytes are read only of files that share their size with a file of another part.
    """
    sizes: dict[int, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name, paths in parts.items():
        for path in dict.fromkeys(paths):
            try:
                sizes[os.stat(path).st_size][name].append(path)
            except OSError:
                continue
    found: Pairs = defaultdict(list)
    for members in sizes.values():
        if len(members) < 2:
            continue
        marks = {name: {_mark(path): path for path in paths} for name, paths in members.items()}
        for one, other in combinations(sorted(members, key=list(parts).index), 2):
            shared = sorted(marks[one].keys() & marks[other].keys())
            found[one, other] += [(marks[one][mark], marks[other][mark]) for mark in shared]
    return {names: sorted(pairs) for names, pairs in found.items() if pairs}


def _mark(path: str) -> str:
    """The SHA-256 of a file's bytes; of its path, where they can't be read."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError:
        return os.path.realpath(path)


def difference_hash(path: str) -> int | None:
    """64 bits: whether each of 8 x 8 pixels of the shrunk grey image is darker than its right neighbour.

    None for a file that can't be read. Equal pictures have equal bits after resizing, recompression and
    moderate changes of brightness; turned, flipped, cropped or shifted ones don't.
    """
    try:
        image = read_image(path)
    except UserError:
        return None
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    small = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA).astype(np.int16)
    bits = (small[:, 1:] > small[:, :-1]).ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def nearly_same(parts: Mapping[str, Sequence[str]], max_distance: int = MAX_DISTANCE) -> Pairs:
    """The pairs of images in two parts whose difference hashes differ in at most `max_distance` bits."""
    hashes: dict[str, tuple[list[str], npt.NDArray[np.uint64]]] = {}
    for name, paths in parts.items():
        known = [(path, mark) for path in dict.fromkeys(paths) if (mark := difference_hash(path)) is not None]
        hashes[name] = [path for path, _ in known], np.array([mark for _, mark in known], dtype=np.uint64)
    found: Pairs = {}
    for one, other in combinations(parts, 2):
        (own_paths, own), (other_paths, others) = hashes[one], hashes[other]
        pairs = []
        for path, mark in zip(own_paths, own, strict=True):
            for index in np.flatnonzero(_distances(others, mark) <= max_distance):
                pairs.append((path, other_paths[index]))
        if pairs:
            found[one, other] = pairs
    return found


def _distances(marks: npt.NDArray[np.uint64], mark: np.uint64) -> npt.NDArray[np.int64]:
    """(N,), in how many bits each of the marks (N,) differs from one."""
    octets = (marks ^ mark).view(np.uint8).reshape(-1, 8)
    return np.asarray(np.unpackbits(octets, axis=1).sum(axis=1, dtype=np.int64))


def leaks(parts: Sequence[Part]) -> Iterator[Finding]:
    """Images that lie in two parts, by path or content."""
    for names, pairs in same_content(_paths(parts)).items():
        yield _leak(names, pairs, parts)


def _leak(names: tuple[str, str], pairs: list[Pair], parts: Sequence[Part]) -> Finding:
    """The finding about one pair of parts: the worse, the nearer to the metric."""
    where = " and ".join(part.where for part in parts if part.name in names)
    pictures = [Path(one).name if one == other else f"{one} = {other}" for one, other in pairs]
    what = f"{count(len(pairs), 'image')} in both {names[0]} and {names[1]}: {some(pictures)}"
    listed = [list(pair) for pair in pairs[:100]]
    trained = [name for name in names if name.startswith(TRAINED)]
    if len(trained) == 1:
        mend = f"remove them from {trained[0]}: AP on images that were trained on means nothing"
        return lies("leak-into-evaluation", where, what, mend, images=len(pairs), pairs=listed)
    if len(trained) == 2:
        mend = "split again without overlap, or leave them out with except_ids"
        return hurts("leak-between-sources", where, what, mend, images=len(pairs), pairs=listed)
    mend = "choose on one of the two files and report on the other"
    return hurts("leak-between-val-and-test", where, what, mend, images=len(pairs), pairs=listed)


def near_duplicates(parts: Sequence[Part]) -> Iterator[Finding]:
    """Images that look alike in a trained and in an evaluated part; equal files are `leaks`."""
    same = {names: set(pairs) for names, pairs in same_content(_paths(parts)).items()}
    for names, pairs in nearly_same(_paths(parts)).items():
        alike = [pair for pair in pairs if pair not in same.get(names, ())]
        if alike and any(name.startswith(TRAINED) for name in names) and _evaluated(names[1]):
            yield hurts(
                "near-duplicate",
                f"{names[0]} and {names[1]}",
                f"{count(len(alike), 'pair')} of images that look alike: "
                f"{some([f'{Path(one).name} ~ {Path(other).name}' for one, other in alike], len(alike))}",
                "look at them, and split by scene or video if they show the same thing",
                pairs=[list(pair) for pair in alike[:100]],
            )


def _evaluated(name: str) -> bool:
    return not name.startswith(TRAINED)


def _paths(parts: Sequence[Part]) -> dict[str, list[str]]:
    """{part: paths of its images}, trained parts first."""
    return {part.name: [part.path(one) for one in part.images] for part in parts}
