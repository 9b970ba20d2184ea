"""Sigmoid focal loss and its gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .precision import full_precision, wide

if TYPE_CHECKING:  # importing this module stays cheap: torch comes with the first kernel called
    from torch import Tensor


def _signed_logits(
    logits: Tensor, target: Tensor, weight: Tensor, alpha: float
) -> tuple[Tensor, Tensor, Tensor]:
    """((N, C) logits of the true answer, factor per element, (N, C) bool of the true class).

    A target outside 0 .. C - 1 is background. Its weight is 1; mmcv reads past the array's end.
    """
    import torch

    classes = torch.arange(logits.shape[1], device=logits.device)
    positive = target[:, None] == classes
    factor = positive.to(logits.dtype) * (2 * alpha - 1) + (1 - alpha)
    if weight.numel():
        row = (positive * weight).sum(1) + (~positive.any(1)).to(logits.dtype)
        factor = factor * row[:, None]
    return torch.where(positive, logits, -logits), factor, positive


@full_precision
def sigmoid_focal_loss_forward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    output: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Nothing; output (N, C) becomes alpha_t (1 - p_t)^gamma (-log p_t), Focal Loss, Eq. 5.

    input (N, C) logits, target (N,) int64 classes, weight (C,) or empty. In logits, so that it
    stays exact where mmcv's float32 probabilities reach 0 or 1 (logits beyond 17).
    """
    import torch

    logits, weights = wide(input, weight)
    logits, factor, _ = _signed_logits(logits, target, weights, alpha)
    wrong = torch.sigmoid(-logits)
    output.copy_(factor * wrong**gamma * torch.nn.functional.softplus(-logits))


@full_precision
def sigmoid_focal_loss_backward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    grad_input: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Nothing; grad_input (N, C) becomes the derivative of each loss by its logit."""
    import torch

    logits, weights = wide(input, weight)
    logits, factor, positive = _signed_logits(logits, target, weights, alpha)
    wrong = torch.sigmoid(-logits)
    slope = gamma * (1 - wrong) * torch.nn.functional.softplus(-logits) + wrong
    grad = factor * wrong**gamma * slope
    grad_input.copy_(torch.where(positive, -grad, grad))


OPERATIONS: tuple[Callable[..., Any], ...] = (sigmoid_focal_loss_forward, sigmoid_focal_loss_backward)
