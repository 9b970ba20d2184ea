"""Slow, obvious oracles of the methods' own mathematics: loops over Python numbers, one box at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence

from . import boxes as box_oracle
from .boxes import Box

Rows = Sequence[Sequence[float]]


def softmax(logits: Sequence[float]) -> list[float]:
    """Probabilities of one box."""
    top = max(logits)
    powers = [math.exp(value - top) for value in logits]
    return [value / sum(powers) for value in powers]


def focal(logits: Sequence[float], label: int, gamma: float) -> float:
    """(1 - p)^gamma · (-log p) of one box."""
    top = max(logits)
    entropy = math.log(sum(math.exp(value - top) for value in logits)) + top - logits[label]
    return float(-math.expm1(-entropy)) ** gamma * entropy


def mean_square(pairs: Sequence[tuple[Sequence[float], Sequence[float], Sequence[float]]]) -> float:
    """The mean of ((first - second) / unit)² over (first, second, unit) of all boxes; 0 without any."""
    if not pairs:
        return 0.0
    each = [
        sum(((a - b) / u) ** 2 for a, b, u in zip(first, second, unit, strict=True)) / len(first)
        for first, second, unit in pairs
    ]
    return math.fsum(each) / len(each)


def mean_teacher(
    student_logits: Sequence[Rows],
    teacher_logits: Sequence[Rows],
    student_boxes: Sequence[Rows],
    teacher_boxes: Sequence[Rows],
    wholes: Sequence[Sequence[Sequence[Box]]],
    valid: Sequence[Sequence[bool]],
    floor: float,
) -> tuple[float, float]:
    """The class and the box term, from logits and refined boxes of the regions of each image, one frame.

    wholes: of each region the boxes whose larger side is the unit, at least 1 px.
    """
    scores, refined = [], []
    for image, flags in enumerate(valid):
        for region, flag in enumerate(flags):
            if not flag:
                continue
            student = softmax(student_logits[image][region])
            teacher = softmax(teacher_logits[image][region])
            scores.append((student, teacher, [1.0] * len(student)))
            if sum(teacher[:-1]) > floor:
                box = teacher_boxes[image][region]
                each = [[one[2] - one[0], one[3] - one[1]] for one in wholes[image][region]]
                sides = [max(1.0, *side) for side in zip(*each, strict=True)] * 2
                refined.append((student_boxes[image][region], box, sides))
    return mean_square(scores), mean_square(refined)


def hard_labels(
    detections: Sequence[tuple[Box, int, float]],
    homography: Rows,
    size: tuple[float, float],
    min_score: float,
    min_visible: float,
) -> list[tuple[list[float], int]]:
    """The pseudo boxes (box in the strong view, class) that one image's (box, class, score) leave over."""
    kept = []
    for box, label, score in detections:
        if not score > min_score:
            continue
        hull = box_oracle.hull(box, homography)
        seen = box_oracle.clip(hull, size)
        if min(seen[2] - seen[0], seen[3] - seen[1]) <= 1e-2:
            continue
        if box_oracle.area(seen) / max(box_oracle.area(hull), 1e-6) < min_visible:
            continue
        kept.append((seen, label))
    return kept
