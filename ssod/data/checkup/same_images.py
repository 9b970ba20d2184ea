"""Images that two parts share: by path, by content, and nearly, by a perceptual hash."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from ssod.data.checkup.findings import Finding, count, hurts, lies, some
from ssod.data.checkup.parts import TRAINED, Part
from ssod.data.decode import read_image
from ssod.data.leaks import find_leaks
from ssod.errors import UserError

MAX_DISTANCE = 6  # bits of 64 in which two difference hashes of one picture may differ
Pair = tuple[str, str]  # paths of one image, in the first and in the second part
Pairs = dict[tuple[str, str], list[Pair]]  # by the names of the two parts


def same_content(parts: Mapping[str, Sequence[str]]) -> Pairs:
    """The pairs of files that are one file, or equal byte for byte, in two parts; {part: paths}."""
    found: Pairs = defaultdict(list)
    for leak in find_leaks(parts):
        found[leak.part, leak.other_part].append((leak.path, leak.other_path))
    return {names: sorted(pairs) for names, pairs in found.items()}


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


Hashes = dict[str, int]  # path: difference hash


def hashes(paths: Sequence[str]) -> Hashes:
    """The difference hashes of the images that can be read."""
    found = {path: difference_hash(path) for path in dict.fromkeys(paths)}
    return {path: mark for path, mark in found.items() if mark is not None}


def nearly_same(one: Hashes, other: Hashes, max_distance: int = MAX_DISTANCE) -> list[Pair]:
    """The pairs of images of two parts whose difference hashes differ in at most `max_distance` bits."""
    marks, paths = np.array(list(other.values()), dtype=np.uint64), list(other)
    return [
        (path, paths[index])
        for path, mark in one.items()
        for index in np.flatnonzero(_distances(marks, np.uint64(mark)) <= max_distance)
    ]


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
    """Images of a trained part that look like one of an evaluated part; equal files are `leaks`."""
    same = {names: set(pairs) for names, pairs in same_content(_paths(parts)).items()}
    marks = {name: hashes(paths) for name, paths in _paths(parts).items()}
    for one, other in combinations(parts, 2):
        if one.evaluated or not other.evaluated:
            continue
        names = one.name, other.name
        alike = [
            pair
            for pair in nearly_same(marks[one.name], marks[other.name])
            if pair not in same.get(names, ())
        ]
        if alike:
            examples = [f"{Path(first).name} ~ {Path(second).name}" for first, second in alike]
            yield hurts(
                "near-duplicate",
                f"{one.name} and {other.name}",
                f"{count(len(alike), 'pair')} of images that look alike: {some(examples)}",
                "look at them, and split by scene or video if they show the same thing",
                pairs=[list(pair) for pair in alike[:100]],
            )


def _paths(parts: Sequence[Part]) -> dict[str, list[str]]:
    """{part: paths of its images}, in the order of the parts: trained ones first."""
    return {part.name: [part.path(one) for one in part.images] for part in parts}
