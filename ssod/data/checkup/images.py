"""Checks of a part's image files: there, readable, of the size that the records say, of which orientation."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ssod.data.checkup.findings import Finding, count, fails, lies, note, some
from ssod.data.checkup.parts import Part, Record
from ssod.data.decode import image_size, read_image
from ssod.errors import BadImageError, UserError

MAX_HEADERS = 20_000  # images of a part whose headers are read; evenly spaced where there are more
DECODED = 32  # images of a part that are decoded whole, unless all are asked for


@dataclass(frozen=True)
class Seen:
    """What the disk holds of a part's images: paths that are missing · whose header can't be read, or whose
    pixels · (record, size a viewer shows) of those that differ from their record.
    """

    missing: list[str]
    unreadable: list[str]
    resized: list[tuple[Record, tuple[int, int]]]


def spaced(records: Sequence[Record], limit: int) -> list[Record]:
    """At most `limit` records, evenly spaced."""
    if len(records) <= limit:
        return list(records)
    return [records[index] for index in np.linspace(0, len(records) - 1, limit).astype(int)]


def look_at(part: Part, decode_all: bool = False) -> Seen:
    """What the files of a part's images are; their pixels are decoded for a sample, or for all.

    What the dataset itself left out is among them, however many headers are read.
    """
    seen = Seen([], [], [])
    for path in part.left_out:
        (seen.unreadable if os.path.exists(path) else seen.missing).append(path)
    records = part.images if decode_all else spaced(part.images, MAX_HEADERS)
    readable = []
    for one in records:
        path = part.path(one)
        if not os.path.isfile(path):
            seen.missing.append(path)
            continue
        try:
            size = image_size(path)
        except BadImageError:
            seen.unreadable.append(path)
            continue
        readable.append(one)
        if one.get("width") and one.get("height") and size != (one["width"], one["height"]):
            seen.resized.append((one, size))
    for one in readable if decode_all else spaced(readable, DECODED):
        try:
            read_image(part.path(one))
        except UserError:
            seen.unreadable.append(part.path(one))
    return seen


def missing_folder(part: Part, seen: Seen) -> Iterator[Finding]:
    """A folder of images that is not there."""
    if part.folder and not os.path.isdir(part.folder):
        yield fails(
            "image-folder-missing",
            part.where,
            f"folder {part.folder} does not exist",
            "correct data_root and data_prefix=dict(img=...)",
        )


def missing_images(part: Part, seen: Seen) -> Iterator[Finding]:
    """Images that are listed and not there."""
    if seen.missing and (not part.folder or os.path.isdir(part.folder)):
        yield fails(
            "missing-image",
            part.where,
            f"{count(len(seen.missing), 'image')} not there: {some(seen.missing)}",
            "restore the files, or remove their records",
            images=len(seen.missing),
            files=seen.missing[:100],
        )


def unreadable_images(part: Part, seen: Seen) -> Iterator[Finding]:
    """Images that are damaged, cut short, empty or no images."""
    if seen.unreadable:
        yield fails(
            "unreadable-image",
            part.where,
            f"{count(len(seen.unreadable), 'image')} can't be read: {some(seen.unreadable)}",
            f"restore the files, or remove {'their records' if part.ann_file else 'them'}",
            images=len(seen.unreadable),
            files=seen.unreadable[:100],
        )


def wrong_sizes(part: Part, seen: Seen) -> Iterator[Finding]:
    """Images of another size than their records say: the boxes were drawn on something else."""
    if seen.resized:
        texts = [
            f"{one['file_name']} is {size[0]} x {size[1]}, not {one['width']} x {one['height']}"
            for one, size in seen.resized[:3]
        ]
        yield lies(
            "wrong-image-size",
            part.where,
            f"{count(len(seen.resized), 'image')} of another size than recorded: "
            f"{some(texts, len(seen.resized))}",
            "find out which of the two the boxes were drawn on; correct width and height, or the files",
            files=[one["file_name"] for one, _ in seen.resized[:100]],
        )


CHECKS: tuple[Callable[[Part, Seen], Iterator[Finding]], ...] = (
    missing_folder,
    missing_images,
    unreadable_images,
    wrong_sizes,
)


def orientations(parts: Sequence[Part]) -> Iterator[Finding]:
    """Unlabeled images of an orientation that no labeled image has: such batches mix both."""
    kinds = {part.name: _kinds(part) for part in parts if not part.evaluated}
    labeled = kinds.get("labeled")
    for name, found in kinds.items():
        if labeled and found - labeled and name != "labeled":
            alone = " and ".join(sorted(found - labeled))
            yield note(
                "orientation-without-labels",
                name,
                f"{alone} images, where all labeled ones are {' and '.join(sorted(labeled))}: batches of "
                "both pad more",
                "nothing has to be done; label some of them if they matter",
            )


def _kinds(part: Part) -> set[str]:
    """The orientations that come in a part."""
    sizes = [(one.get("width"), one.get("height")) for one in part.images]
    return {"landscape" if w >= h else "portrait" for w, h in sizes if w and h}
