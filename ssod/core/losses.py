"""A loss is a weighted sum over a normaliser; each is written here once, in float32."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def weighted_sum(values: Tensor, weights: Tensor, normaliser: Tensor | float) -> Tensor:
    """Σ weights · values / normaliser, a scalar. Where a weight is 0 the value is never looked at.

    `torch.where` instead of a bare product: padding may hold anything, and 0 · inf is not 0.
    """
    values = values.float()
    kept = torch.where(weights > 0, values, torch.zeros_like(values))
    return (kept * weights).sum() / normaliser


def weighted_cross_entropy(
    logits: Tensor, classes: Tensor, weights: Tensor, normaliser: Tensor | float
) -> Tensor:
    """Softmax cross-entropy of logits (..., C + 1) with classes (...), weighted (...)."""
    values = functional.cross_entropy(logits.float().flatten(0, -2), classes.flatten(), reduction="none")
    return weighted_sum(values, weights.flatten(), normaliser)


def weighted_l1(prediction: Tensor, target: Tensor, weights: Tensor, normaliser: Tensor | float) -> Tensor:
    """L1 distance of (..., 4) to (..., 4), summed over the last axis, weighted (...)."""
    values = (prediction.float() - target.float()).abs().sum(dim=-1)
    return weighted_sum(values, weights, normaliser)
