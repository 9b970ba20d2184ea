"""Boxes against truth as COCO's evaluation matches them, and what follows: precision, recall, mean IoU.

NumPy alone: no network, no file.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
MIN_IOU = 0.5


class Found(NamedTuple):
    """The N boxes that a network found in one image: boxes (N, 4) xyxy px · classes (N,) · scores (N,)."""

    boxes: Floats
    classes: Integers
    scores: Floats


@dataclass(frozen=True)
class Matches:
    """N found boxes, each with what became of it; of one image or, joined, of many.

    scores, classes (N,) · hit (N,): has a truth box of its own · counted (N,): neither matched to a crowd nor
    of an image without known truth: what precision is about · iou (N,): with the matched truth, else 0 ·
    truth (C,): truth boxes of each class, crowds left out · images: how many.
    """

    scores: Floats
    classes: Integers
    hit: Flags
    counted: Flags
    iou: Floats
    truth: Integers
    images: int

    def of_class(self, number: int) -> Matches:
        """Those of one class."""
        mine = self.classes == number
        truth = np.zeros_like(self.truth)
        truth[number] = self.truth[number]
        kept = {each: getattr(self, each)[mine] for each in ("scores", "classes", "hit", "counted", "iou")}
        return Matches(**kept, truth=truth, images=self.images)


class Quality(NamedTuple):
    """Precision, recall and mean IoU of the hits, nan where nothing is known; boxes an image."""

    precision: float
    recall: float
    mean_iou: float
    boxes: float


def overlaps(found: Floats, truth: Floats, crowd: Flags) -> Floats:
    """IoU (N, M) of boxes (N, 4) with truth (M, 4); with a crowd, the share of the found box inside it."""
    low = np.maximum(found[:, None, :2], truth[None, :, :2])
    high = np.minimum(found[:, None, 2:], truth[None, :, 2:])
    common = (high - low).clip(min=0).prod(axis=-1)
    own, theirs = ((each[:, 2:] - each[:, :2]).clip(min=0).prod(axis=-1) for each in (found, truth))
    union = np.where(crowd[None], own[:, None], own[:, None] + theirs[None] - common)
    shares: Floats = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    return shares


def match(
    found: Found,
    truth: Any,
    num_classes: int,
    min_iou: float = MIN_IOU,
    by_class: bool = True,
) -> Matches:
    """What becomes of the boxes of one image; truth: a `Truth`, or None where it is not known.

    Greedily, as pycocotools does: by falling score each box takes the free truth of its class (of any class,
    with by_class False) that it overlaps most, from `min_iou` on; failing that a crowd, which takes any
    number of boxes and makes them count neither way. Matches above a score bound are the same as of those
    boxes alone: a lower box never takes a truth from a higher one.
    """
    number = len(found.scores)
    hit, counted, iou = np.zeros(number, bool), np.zeros(number, bool), np.zeros(number)
    count = np.zeros(num_classes, dtype=np.int64)
    if truth is not None:
        counted[:] = True
        count += np.bincount(truth.classes[~truth.crowd], minlength=num_classes)
        shares = overlaps(found.boxes, truth.boxes, truth.crowd)
        if by_class:
            shares[found.classes[:, None] != truth.classes[None]] = -1.0
        free = ~truth.crowd
        for box in np.argsort(-found.scores, kind="stable"):
            reached = shares[box] >= min(min_iou, 1 - 1e-10)
            places = np.flatnonzero(reached & free)
            if len(places):
                # The last of equals, as there.
                best = places[len(places) - 1 - shares[box, places][::-1].argmax()]
                hit[box], iou[box], free[best] = True, shares[box, best], False
            elif (reached & truth.crowd).any():
                counted[box] = False
    return Matches(found.scores, found.classes, hit, counted, iou, count, 1)


def joined(several: Sequence[Matches], num_classes: int) -> Matches:
    """The matches of several images as one; of none, empty ones."""
    empty = np.zeros(0)
    nothing = Matches(
        empty, empty.astype(np.int64), empty > 0, empty > 0, empty, np.zeros(num_classes, np.int64), 0
    )
    together = [nothing, *several]
    arrays = {
        field.name: np.concatenate([getattr(each, field.name) for each in together])
        for field in fields(Matches)
        if field.name not in ("truth", "images")
    }
    truth = np.sum([each.truth for each in together], axis=0)
    return Matches(**arrays, truth=truth, images=sum(each.images for each in together))


def quality(matches: Matches) -> Quality:
    """Precision = hits / counted boxes, recall = hits / truth boxes, the hits' mean IoU, boxes an image."""
    hits, counted, truth = int(matches.hit.sum()), int(matches.counted.sum()), int(matches.truth.sum())
    return Quality(
        precision=hits / counted if counted else math.nan,
        recall=hits / truth if truth else math.nan,
        mean_iou=float(matches.iou[matches.hit].mean()) if hits else math.nan,
        boxes=len(matches.scores) / max(matches.images, 1),
    )


class Curve(NamedTuple):
    """Precision and recall (N,) of all boxes with a score of at least `scores` (N,), from the highest on."""

    scores: Floats
    precision: Floats
    recall: Floats


def curve(matches: Matches) -> Curve:
    """Precision and recall against the score bound, at each score there is."""
    order = np.argsort(-matches.scores, kind="stable")
    hits, counted = np.cumsum(matches.hit[order]), np.cumsum(matches.counted[order])
    last = np.ones(len(order), dtype=np.bool_)  # of equal scores
    last[:-1] = np.diff(matches.scores[order]) != 0
    scores, hits, counted = matches.scores[order][last], hits[last], counted[last]
    precision = np.divide(hits, counted, out=np.full(len(hits), np.nan), where=counted > 0)
    truth = matches.truth.sum()
    return Curve(scores, precision, hits / truth if truth else np.full(len(hits), np.nan))
