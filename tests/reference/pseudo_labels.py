"""Slow, obvious oracles of how pseudo labels are chosen and trusted, in Python numbers; random cases."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ssod.core.labels import BoxLabels

from .boxes import Box, iou

Marks = Sequence[Sequence[bool]]
Numbers = Sequence[Sequence[float]]

CLASSES = 4


def random_boxes(count: int, generator: torch.Generator) -> Tensor:
    """Boxes (count, 4) with whole sides of 1 to 40 px in an image of 100 px: some overlap, some are equal."""
    corner = torch.randint(0, 60, (count, 2), generator=generator).float()
    return torch.cat([corner, corner + torch.randint(1, 41, (count, 2), generator=generator)], dim=1)


def random_labels(counts: Sequence[int], seed: int) -> BoxLabels:
    """Images with these numbers of boxes; scores are hundredths, so that some stand on a threshold.

    Padding holds NaN boxes and high scores: nobody may look there.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = BoxLabels.pad(
        [random_boxes(count, generator) for count in counts],
        [torch.randint(CLASSES, (count,), generator=generator) for count in counts],
        [torch.randint(0, 101, (count,), generator=generator) / 100 for count in counts],
    )
    labels.boxes[~labels.valid] = torch.nan
    labels.scores[~labels.valid] = 1.0
    return labels


def random_scores(*shape: int, generator: torch.Generator) -> Tensor:
    """Class probabilities (..., CLASSES + 1)."""
    return (torch.randn(*shape, CLASSES + 1, generator=generator) * 2).softmax(dim=-1)


# ---------------------------------------------------------------- reliability and weights


def reliability(
    indicator: str, box: Box, labels: Sequence[Box], student: Sequence[float], teacher: Sequence[float]
) -> float:
    """r_j of one box; labels: the image's valid ones; student, teacher: its scores, background last."""
    if indicator == "teacher_background":
        return teacher[-1]
    if indicator == "student_background":
        return student[-1]
    if indicator == "score_difference":
        return 1 - abs(sum(student[:-1]) - sum(teacher[:-1]))  # of the foreground scores
    best = 0.0
    for label in labels:
        best = max(best, iou(label, box))
    return {"iou": best, "reverse_iou": 1 - best, "none": 1.0}[indicator]


def background_weights(
    positive: Marks, used: Marks, reliability: Numbers, norm: str
) -> tuple[list[list[float]], float]:
    """Soft Teacher's weight of every sampled box and what the weighted sum of losses is divided by."""
    num_foreground, total_reliability, total = 0, 0.0, 0.0
    for image, row in enumerate(used):
        for slot, is_used in enumerate(row):
            if positive[image][slot]:
                num_foreground += 1
                total += 1
            elif is_used:
                total_reliability += reliability[image][slot]
                total += reliability[image][slot]
    weights = []
    for image, row in enumerate(used):
        weights.append([0.0] * len(row))
        for slot, is_used in enumerate(row):
            if positive[image][slot]:
                weights[image][slot] = 1.0 if norm == "code" else 1 / num_foreground
            elif is_used and reliability[image][slot] > 0:
                share = 1.0 if norm == "code" else total_reliability
                weights[image][slot] = reliability[image][slot] / share
    return weights, max(total, 1.0) if norm == "code" else 1.0


# ---------------------------------------------------------------- selection


class ClassThresholds:
    """FlexMatch's thresholds over boxes, counted one by one; n and σ are moving averages from 0."""

    def __init__(self, min_score: float, lowest: float, decay: float, effect: str) -> None:
        self.min_score, self.lowest, self.decay, self.effect = min_score, lowest, decay, effect
        self.seen, self.learned = [0.0] * CLASSES, [0.0] * CLASSES

    def threshold(self, chosen: int) -> float:
        """T(c) of one class."""
        effects, unused = list(self.learned), sum(self.seen) - sum(self.learned)
        if self.effect == "share":
            effects = [
                learned / seen if seen > 0 else 0.0
                for learned, seen in zip(self.learned, self.seen, strict=True)
            ]
            unused = unused / sum(self.seen) if sum(self.seen) > 0 else 1.0
        best = max([*effects, unused])
        beta = effects[chosen] / best if best > 0 else 0.0
        return max(self.min_score * beta / (2 - beta), self.lowest)

    def count(self, images: Sequence[Sequence[tuple[int, float]]]) -> None:
        """Counts the (class, score) pairs of a batch."""
        for each in range(CLASSES):
            scores = [score for image in images for label, score in image if label == each]
            above = [score for score in scores if score > self.min_score]
            self.seen[each] = self.decay * self.seen[each] + (1 - self.decay) * len(scores)
            self.learned[each] = self.decay * self.learned[each] + (1 - self.decay) * len(above)
