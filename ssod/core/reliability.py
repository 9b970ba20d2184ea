"""How far a pseudo label can be trusted: box spread under jitter, background scores of a teacher."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

SpreadNorm = Literal["code", "paper"]


def box_spread(refined: Tensor, norm: SpreadNorm = "code") -> tuple[Tensor, Tensor]:
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

    Soft Teacher, section 3.2: r_j, what the teacher says of a box that the student is told is background.
    """
    return probabilities[..., -1].clamp(0, 1)


def soften_background(
    positive: Tensor, used: Tensor, reliability: Tensor, norm: SpreadNorm = "code"
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
