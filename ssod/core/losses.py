"""A loss is a weighted sum over a normaliser, written here once, in float32."""

from __future__ import annotations

import torch
from torch import Tensor


def weighted_sum(values: Tensor, weights: Tensor, normaliser: Tensor | float) -> Tensor:
    """Σ weights · values / normaliser, a scalar. Where a weight is 0 the value is never looked at.

    `torch.where` instead of a bare product: padding may hold anything, and 0 · inf is not 0.
    """
    values = values.float()
    kept = torch.where(weights > 0, values, torch.zeros_like(values))
    return (kept * weights).sum() / normaliser
