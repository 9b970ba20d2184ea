"""Checks of a part's boxes, all at once as arrays. One function for each finding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from numbers import Real

import numpy as np
import numpy.typing as npt

from ssod.data.checkup.findings import Finding, count, fails, hurts, lies, some
from ssod.data.checkup.parts import Part, Record

TOLERANCE = 1.0  # pixels that a box may reach out of its image: rounding
CORNER_SHARE = 0.2  # of boxes that end outside their images, from which they are suspected to be corners
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Boxes:
    """The boxes of a part's images: records · xywh (N, 4) in pixels · size (N, 2), their images' w and h, NaN
    where unknown.
    """

    records: list[Record]
    xywh: npt.NDArray[np.float64]
    size: npt.NDArray[np.float64]

    @property
    def finite(self) -> Mask:
        """(N,), without NaN and infinity."""
        return np.asarray(np.isfinite(self.xywh).all(axis=1))

    def examples(self, mask: Mask) -> str:
        """The first few boxes of a mask as text."""
        rows = np.flatnonzero(mask)
        shown = [f"annotation {self.records[i].get('id')} {self.records[i]['bbox']}" for i in rows[:3]]
        return some(shown, len(rows))


def boxes_of(part: Part) -> Boxes:
    """The part's boxes that are four numbers; others are `malformed_boxes`."""
    sizes = {one["id"]: (_number(one.get("width")), _number(one.get("height"))) for one in part.images}
    records = [one for one in _annotations(part) if is_box(one.get("bbox"))]
    xywh = np.array([one["bbox"] for one in records], dtype=np.float64).reshape(-1, 4)
    size = np.array([sizes[one["image_id"]] for one in records], dtype=np.float64).reshape(-1, 2)
    return Boxes(records, xywh, size)


def _number(value: object) -> float:
    return float(value) if isinstance(value, Real) else float("nan")


def _annotations(part: Part) -> Iterator[Record]:
    """The annotations of the part's images."""
    known = {one["id"] for one in part.images}
    yield from (one for one in part.annotations if isinstance(one, dict) and one.get("image_id") in known)


def is_box(value: object) -> bool:
    """Whether it is a list of four numbers, finite or not."""
    return (
        isinstance(value, list) and len(value) == 4 and all(isinstance(side, (int, float)) for side in value)
    )


def malformed_boxes(part: Part, boxes: Boxes) -> Iterator[Finding]:
    """Boxes that are not four numbers."""
    bad = [one.get("id") for one in _annotations(part) if "bbox" in one and not is_box(one["bbox"])]
    if bad:
        yield fails(
            "malformed-box",
            part.where,
            f"{count(len(bad), 'box')} not of four numbers (annotation {some(bad)})",
            "write bbox as [x, y, width, height] in pixels",
            boxes=len(bad),
        )


def boxes_not_finite(part: Part, boxes: Boxes) -> Iterator[Finding]:
    """Boxes with NaN or infinity."""
    bad = ~boxes.finite
    if bad.any():
        yield (lies if part.evaluated else fails)(
            "not-finite-box",
            part.where,
            f"{count(int(bad.sum()), 'box')} with NaN or infinity: {boxes.examples(bad)}",
            "correct the numbers, or remove the boxes",
            boxes=int(bad.sum()),
        )


def negative_boxes(part: Part, boxes: Boxes) -> Iterator[Finding]:
    """Boxes with a negative side."""
    bad = boxes.finite & (boxes.xywh[:, 2:] < 0).any(axis=1)
    if bad.any():
        yield _dropped(
            "negative-box", part, boxes, bad, "with a negative side", "swap the corners that it was made from"
        )


def zero_area_boxes(part: Part, boxes: Boxes) -> Iterator[Finding]:
    """Boxes thinner than a pixel, or with an area of 0 in the record: mmdet leaves them out of training."""
    sides = boxes.xywh[:, 2:]
    area = np.array([_number(one.get("area", 1.0)) for one in boxes.records]).reshape(-1)
    bad = boxes.finite & (sides >= 0).all(axis=1) & ((sides < 1).any(axis=1) | (area <= 0))
    if bad.any():
        small = bool((boxes.xywh[boxes.finite] <= 1).all())
        mend = "write pixels, not fractions of the image" if small else "remove them, or draw them again"
        yield _dropped("zero-area-box", part, boxes, bad, "thinner than a pixel, or of area 0", mend)


def _dropped(code: str, part: Part, boxes: Boxes, bad: Mask, what: str, mend: str) -> Finding:
    """The finding about boxes that training drops, and that a metric counts as never found."""
    effect = "the metric counts them as missed" if part.evaluated else "training drops them"
    return (lies if part.evaluated else hurts)(
        code,
        part.where,
        f"{count(int(bad.sum()), 'box')} {what}, {effect}: {boxes.examples(bad)}",
        mend,
        boxes=int(bad.sum()),
    )


def _sane(boxes: Boxes) -> Mask:
    """(N,), finite with positive sides."""
    return boxes.finite & (boxes.xywh[:, 2:] > 0).all(axis=1)


def _outside(boxes: Boxes) -> Mask:
    """(N,), reaching out of the image by more than the tolerance."""
    far = (boxes.xywh[:, :2] + boxes.xywh[:, 2:] > boxes.size + TOLERANCE).any(axis=1)
    near = (boxes.xywh[:, :2] < -TOLERANCE).any(axis=1)
    return np.asarray(_sane(boxes) & (far | near))


def _are_corners(boxes: Boxes) -> bool:
    """Whether all sane boxes make sense as x1, y1, x2, y2, and many don't as x, y, width, height."""
    sane = _sane(boxes)
    if not sane.any() or _outside(boxes).sum() < max(3, CORNER_SHARE * sane.sum()):
        return False
    xyxy, size = boxes.xywh[sane], boxes.size[sane]
    return bool((xyxy[:, 2:] > xyxy[:, :2]).all() and (xyxy[:, 2:] <= size + TOLERANCE).all())


def corner_boxes(part: Part, boxes: Boxes) -> Iterator[Finding]:
    """Boxes that were written as two corners: read as corner and sides they are far too large."""
    if _are_corners(boxes):
        yield lies(
            "corner-boxes",
            part.where,
            f"{count(int(_outside(boxes).sum()), 'box')} of {len(boxes.xywh):,} end outside their images, "
            "and none would if they were [x1, y1, x2, y2]",
            "write bbox as [x, y, width, height]",
        )


def outside_boxes(part: Part, boxes: Boxes) -> Iterator[Finding]:
    """Boxes that reach out of their images."""
    bad = _outside(boxes)
    if bad.any() and not _are_corners(boxes):
        yield hurts(
            "outside-box",
            part.where,
            f"{count(int(bad.sum()), 'box')} more than {TOLERANCE:g} px out of the image: "
            f"{boxes.examples(bad)}",
            "clip them, or correct width and height of the image records",
            boxes=int(bad.sum()),
        )


def duplicate_boxes(part: Part, boxes: Boxes) -> Iterator[Finding]:
    """The same box of the same class twice in an image."""
    seen: set[tuple[object, ...]] = set()
    bad = np.zeros(len(boxes.records), dtype=np.bool_)
    for index, one in enumerate(boxes.records):
        key = (one["image_id"], one.get("category_id"), *one["bbox"])
        bad[index] = key in seen
        seen.add(key)
    if bad.any():
        yield hurts(
            "duplicate-box",
            part.where,
            f"{count(int(bad.sum()), 'box')} equal to another one of its image: {boxes.examples(bad)}",
            "keep one of each",
            boxes=int(bad.sum()),
        )


CHECKS: tuple[Callable[[Part, Boxes], Iterator[Finding]], ...] = (
    malformed_boxes,
    boxes_not_finite,
    negative_boxes,
    zero_area_boxes,
    corner_boxes,
    outside_boxes,
    duplicate_boxes,
)
