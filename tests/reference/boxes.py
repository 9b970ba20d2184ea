"""Slow, obvious oracles of ssod/core: loops over Python numbers, one box and one corner at a time."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

Box = Sequence[float]  # x1, y1, x2, y2
BACKGROUND, UNUSED = -1, -2


def project(box: Box, homography: Sequence[Sequence[float]], size: tuple[float, float]) -> list[float]:
    """The hull of the box's mapped corners, cut at the border of an image of (height, width)."""
    return clip(hull(box, homography), size)


def hull(box: Box, homography: Sequence[Sequence[float]]) -> list[float]:
    """The smallest box around the box's four corners, mapped one by one."""
    xs, ys = [], []
    for x, y in ((box[0], box[1]), (box[2], box[1]), (box[2], box[3]), (box[0], box[3])):
        a, b, w = (row[0] * x + row[1] * y + row[2] for row in homography)
        xs.append(a / w)
        ys.append(b / w)
    return [min(xs), min(ys), max(xs), max(ys)]


def clip(box: Box, size: tuple[float, float]) -> list[float]:
    """The box cut at the border of an image of (height, width)."""
    height, width = size
    return [
        min(max(value, 0.0), limit) for value, limit in zip(box, (width, height, width, height), strict=True)
    ]


def area(box: Box) -> float:
    """The box's area, 0 if a side is negative."""
    return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)


def iou(first: Box, second: Box) -> float:
    """Intersection over union, 0 for two boxes without area."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    overlap = max(width, 0.0) * max(height, 0.0)
    union = area(first) + area(second) - overlap
    return overlap / union if union > 0 else 0.0


def assign(
    priors: Sequence[Box],
    labels: Sequence[Box],
    pos_iou: float,
    neg_iou: float,
    min_pos_iou: float,
    match_low_quality: bool,
) -> list[int]:
    """For every prior a label's index, BACKGROUND or UNUSED: the four steps of mmdet's MaxIoUAssigner."""
    if not labels:
        return [BACKGROUND] * len(priors)
    table = [[iou(label, prior) for prior in priors] for label in labels]
    result = []
    for column in zip(*table, strict=True):
        best = max(column)
        if best >= pos_iou:
            result.append(column.index(best))
        else:
            result.append(BACKGROUND if best < neg_iou else UNUSED)
    for index, row in enumerate(table):
        if match_low_quality and max(row) >= min_pos_iou:
            for prior, value in enumerate(row):
                if value == max(row):
                    result[prior] = index  # a later label takes the prior from an earlier one
    return result


def leave_out(
    matched: Sequence[int], priors: Sequence[Box], ignored: Sequence[Box], neg_iou: float
) -> list[int]:
    """An assignment in which background that overlaps an ignored box by `neg_iou` or more is UNUSED."""
    result = list(matched)
    for index, prior in enumerate(priors):
        for box in ignored:
            if result[index] == BACKGROUND and iou(box, prior) >= neg_iou:
                result[index] = UNUSED
    return result


def spread(copies: Sequence[Box], norm: str) -> float:
    """Soft Teacher's σ̄ of one box from its refined copies, as the paper or the released code divides it."""
    mean = [statistics.fmean(values) for values in zip(*copies, strict=True)]
    deviation = [statistics.stdev(values) for values in zip(*copies, strict=True)]
    width, height = max(mean[2] - mean[0], 1.0), max(mean[3] - mean[1], 1.0)
    scale = (width, height) if norm == "code" else (0.5 * (width + height),) * 2
    return sum(value / scale[axis % 2] for axis, value in enumerate(deviation)) / 4
