"""A large COCO file as text: who belongs to whom is parsed, each record stays as it was written.

A part of the file is then a matter of copying pieces of text: no number is printed anew, and polygons are
never held as Python objects, which would take several times the file's size.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ssod.data.coco_walk import Records, check_ids, is_id
from ssod.errors import UserError

Flags = npt.NDArray[np.bool_]
Positions = npt.NDArray[np.int64]
HEAD = ("info", "licenses", "categories")  # besides images and annotations, what a part keeps of the file


@dataclass(frozen=True)
class CocoText:
    """A COCO file with N images and A annotations of C categories.

    sha256: of the file's bytes · head: `info`, `licenses` and `categories`, those that there are · ids: of
    the images, in file order, all numbers or all strings · spans (N, 2), annotation_spans (A, 2): where each
    record begins and ends in `text` · bare: the records of those images that have keys beyond
    plain facts, without these keys · annotation_images, annotation_categories (A,): positions in `ids` and
    in the file's categories · crowd (A,): `iscrowd`.
    """

    path: Path
    sha256: str
    text: str
    head: dict[str, Any]
    ids: list[Any]
    spans: Positions
    bare: dict[int, str]
    annotation_spans: Positions
    annotation_images: Positions
    annotation_categories: Positions
    crowd: Flags

    def ids_at(self, positions: Positions) -> list[Any]:
        """The ids of the images at these positions."""
        return [self.ids[position] for position in positions.tolist()]

    def with_box(self) -> Flags:
        """Whether each image has an annotation that is not a crowd, (N,)."""
        return np.bincount(self.annotation_images[~self.crowd], minlength=len(self.ids)) > 0

    def annotations_of(self, positions: Positions) -> Positions:
        """Which annotations belong to the images at these positions, ascending."""
        inside = np.zeros(len(self.ids), dtype=np.bool_)
        inside[positions] = True
        return np.flatnonzero(inside[self.annotation_images])

    def write_part(self, path: Path, positions: Positions, annotations: bool) -> None:
        """Writes the images at ascending positions as a COCO file, whole or not at all.

        Without `annotations` nothing is left that a person said of an image.
        """
        chosen = self.annotations_of(positions) if annotations else positions[:0]
        partial = path.with_name(f".{path.name}.partial")
        try:
            with partial.open("w", encoding="utf-8") as file:
                file.write("{")
                for key, value in self.head.items():
                    file.write(f"{json.dumps(key)}: {json.dumps(value)},\n")
                file.write('"images": [')
                file.writelines(_separated(self._images(positions, annotations)))
                file.write('],\n"annotations": [')
                file.writelines(_separated(self._pieces(self.annotation_spans[chosen])))
                file.write("]}\n")
            os.replace(partial, path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise UserError(f"cannot write {path} ({error.strerror}): check --out and the disk") from None

    def _pieces(self, spans: Positions) -> Iterator[str]:
        for begin, end in spans.tolist():
            yield self.text[begin:end]

    def _images(self, positions: Positions, annotations: bool) -> Iterator[str]:
        if annotations or not self.bare:
            yield from self._pieces(self.spans[positions])
            return
        for position, (begin, end) in zip(positions.tolist(), self.spans[positions].tolist(), strict=True):
            yield self.bare.get(position) or self.text[begin:end]


def _separated(pieces: Iterator[str]) -> Iterator[str]:
    """The pieces, one a line."""
    for number, piece in enumerate(pieces):
        yield f",\n{piece}" if number else piece


def read_coco_text(path: str | Path) -> CocoText:
    """The file, read once; memory is about twice its size.

    Raises UserError for a file that can't be read, is no JSON or no COCO file, for image ids that are
    missing, double or of different kinds, and for annotations of unknown images or categories.
    """
    path = Path(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read annotation file {path} ({error.strerror}): check the path") from None
    sha256 = hashlib.sha256(raw).hexdigest()
    try:
        text = raw.decode("utf-8-sig")
        del raw
        found = Records(path, text)
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"annotation file {path} is not valid JSON ({reason}): write or download it again"
        ) from None
    for section in ("images", "annotations"):
        if section not in found.sections:
            raise UserError(f"annotation file {path} has no list '{section}': a COCO file has both")
    kept = {key: found.head[key] for key in HEAD if key in found.head}
    return CocoText(
        path,
        sha256,
        text,
        kept,
        found.ids,
        _pairs(found.spans),
        found.bare,
        _pairs(found.annotation_spans),
        _positions(path, "image_id", found.annotation_images, found.ids),
        _positions(path, "category_id", found.annotation_categories, _category_ids(path, found.head)),
        np.array(found.crowd, dtype=np.bool_),
    )


def _pairs(spans: list[tuple[int, int]]) -> Positions:
    return np.array(spans, dtype=np.int64).reshape(-1, 2)


def _positions(path: Path, key: str, values: list[Any], known: list[Any]) -> Positions:
    """Where each value stands among the known ones, (A,); UserError for one that doesn't."""
    places = {value: place for place, value in enumerate(known)}
    try:
        return np.fromiter((places[value] for value in values), dtype=np.int64, count=len(values))
    except (KeyError, TypeError):
        pass
    strange = next(n for n, value in enumerate(values) if not is_id(value) or value not in places)
    raise UserError(
        f"annotation number {strange} in {path} has {key} {values[strange]!r}, which the file does not list: "
        "remove the annotation, or add what is missing"
    )


def _category_ids(path: Path, head: dict[str, Any]) -> list[Any]:
    """The ids of the file's categories, in file order."""
    categories = head.get("categories")
    if not isinstance(categories, list):
        raise UserError(f"annotation file {path} has no list 'categories': add the classes' ids and names")
    ids = [each.get("id") if isinstance(each, dict) else None for each in categories]
    check_ids(path, "categories", ids)
    return ids
