"""How far a pseudo label can be trusted: its spread under jitter; and background, by scores or overlap."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from .geometry import pairwise_iou
from .labels import BoxLabels

Variant = Literal["code", "paper"]  # where the released code and the paper differ
Indicator = Literal[
    "teacher_background", "student_background", "score_difference", "iou", "reverse_iou", "none"
]


def box_spread(refined: Tensor, norm: Variant = "code") -> tuple[Tensor, Tensor]:
    """The spread (B, K) of refined jittered boxes (B, J, K, 4), and their mean box (B, K, 4).

    Soft Teacher, Eq. 7 and 8: the standard deviation of each coordinate over the J copies, relative to the
    box, averaged over the four. `paper` divides by half the sum of the sides, `code` (the released code,
    default) x by the width and y by the height of the mean box, sides at least 1 px.
    """
    mean = refined.mean(dim=1)
    deviation = refined.std(dim=1)  # unbiased, as torch.std is and the released code uses it
    sides = (mean[..., 2:] - mean[..., :2]).clamp(min=1)  # (B, K, 2)
    scale = sides.repeat(1, 1, 2) if norm == "code" else sides.mean(dim=-1, keepdim=True)
    return (deviation / scale).mean(dim=-1), mean


def background_reliability(probabilities: Tensor) -> Tensor:
    """The probability (...) that a region is background, from (..., C + 1) with background last.

    Soft Teacher, section 3.2: r_j, what the teacher says of a box that the student is told is background
    ("BG-T"). Of the student's own probabilities: the indicator "BG-S" of the ablation.
    """
    return probabilities[..., -1].clamp(0, 1)


def difference_reliability(student: Tensor, teacher: Tensor) -> Tensor:
    """How much two networks agree (...) that a region is background, of probabilities (..., C + 1).

    Soft Teacher, section 3.2 ("Pred-Diff"): r_j = 1 - |p_S(background) - p_T(background)|. A
    foreground score is 1 less the background's: the difference of foreground scores is the same number.
    """
    return 1 - (background_reliability(student) - background_reliability(teacher)).abs()


def overlap_reliability(boxes: Tensor, labels: BoxLabels, reverse: bool = False) -> Tensor:
    """The largest IoU (B, S) of boxes (B, S, 4) with the valid labels of their image, 0 without labels.

    Soft Teacher, section 3.2 ("IoU"): r_j = IoU, as hard negative mining has it: the nearer to an object, the
    more can be learned from being background. `reverse` ("Reverse-IoU"): r_j = 1 - IoU.
    """
    iou = pairwise_iou(labels.boxes, boxes).masked_fill(~labels.valid[..., None], 0.0)  # (B, K, S)
    best = iou.amax(dim=1)
    return 1 - best if reverse else best


def reliability_by(
    indicator: Indicator, boxes: Tensor, labels: BoxLabels, student: Tensor, teacher: Tensor | None
) -> Tensor:
    """r_j (B, S) of boxes (B, S, 4) as background, by one of the indicators that Soft Teacher compares.

    labels (B, K): G_cls, in the view of the boxes · student, teacher: their class probabilities
    (B, S, C + 1), the teacher's only for "teacher_background" and "score_difference". "none": 1.
    """
    if indicator == "none":
        return torch.ones_like(boxes[..., 0])
    if indicator in ("iou", "reverse_iou"):
        return overlap_reliability(boxes, labels, reverse=indicator == "reverse_iou")
    if indicator == "student_background":
        return background_reliability(student)
    assert teacher is not None
    if indicator == "teacher_background":
        return background_reliability(teacher)
    return difference_reliability(student, teacher)


def soften_background(
    positive: Tensor, used: Tensor, reliability: Tensor, norm: Variant = "code"
) -> tuple[Tensor, Tensor]:
    """Class weights (B, S) with background softened, and the normaliser of their weighted sum.

    positive, used (B, S) bool · reliability (B, S) r_j. `code`: foreground 1, background r_j, normalised by
    the sum of all weights, at least 1. `paper` (Eq. 4 and 5): foreground 1 / N_fg, background r_j / Σ r_k,
    normaliser 1.
    """
    foreground = positive.float()
    background = (used & ~positive).float() * reliability
    if norm == "code":
        weights = foreground + background
        return weights, weights.sum().clamp(min=1)
    weights = foreground / foreground.sum().clamp(min=1)
    weights = weights + background / background.sum().clamp(min=torch.finfo(torch.float32).eps)
    return weights, torch.ones((), device=weights.device)
