"""A loss is a weighted sum over a normaliser, written here once, in float32."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


def weighted_sum(values: Tensor, weights: Tensor, normaliser: Tensor | float) -> Tensor:
    """Σ weights · values / normaliser, a scalar. Where a weight is 0 the value is never looked at.

    `torch.where` instead of a bare product: padding may hold anything, and 0 · inf is not 0.
    """
    values = values.float()
    kept = torch.where(weights > 0, values, torch.zeros_like(values))
    return (kept * weights).sum() / normaliser


def consistency_mse(first: Tensor, second: Tensor, valid: Tensor, unit: Tensor | None = None) -> Tensor:
    """The mean of ((first - second) / unit)² over the D values (B, S, D) of all valid slots (B, S).

    Mean Teacher's J(θ), as its released code counts it: a mean over the D outputs, too. unit: (B, S, D), None
    for 1. Without a valid slot it is 0.
    """
    difference = first.float() - second.float()
    values = (difference if unit is None else difference / unit).square().mean(dim=-1)
    weights = valid.float()
    return weighted_sum(values, weights, weights.sum().clamp(min=1))


def focal_cross_entropy(logits: Tensor, classes: Tensor, gamma: float) -> Tensor:
    """(1 - p)^gamma · (-log p) of each of N boxes, p the softmax probability of its class; float32 (N,).

    logits (N, C + 1) · classes (N,). Focal loss (arXiv 1708.02002, Eq. 4) over a softmax, as Unbiased Teacher
    takes it; gamma 0 is cross-entropy.
    """
    entropy = cross_entropy(logits.float(), classes, reduction="none")
    return (-torch.expm1(-entropy)).clamp(min=torch.finfo(torch.float32).tiny) ** gamma * entropy
