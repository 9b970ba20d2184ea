"""The exponential moving average of one module's weights in another, in a handful of fused operators."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn


def ramped_decay(decay: float, step: int) -> float:
    """α_t = min(α, 1 - 1 / (t + 1)) for a 0-based step t: the first update copies, later ones average.

    Mean Teacher's released code. Without the ramp a teacher of decay 0.999 still holds 37 % of its random
    initial weights at step 1000.
    """
    return min(decay, 1 - 1 / (step + 1))


@torch.no_grad()
def ema_update(
    target: nn.Module,
    source: nn.Module,
    decay: float | Tensor,
    buffers: Literal["copy", "average"] = "copy",
) -> None:
    """θ_target ← decay · θ_target + (1 - decay) · θ_source, over all parameters at once.

    decay: a number, or a scalar on the device, for which nobody has to wait. Buffers are copied by default:
    BatchNorm statistics must belong to the weights they were measured with. Integer buffers are always
    copied.
    """
    ours, theirs = _paired(target.parameters(), source.parameters())
    _lerp(ours, theirs, 1 - decay)
    ours, theirs = _paired(target.buffers(), source.buffers())
    if buffers == "copy":
        _copy(ours, theirs)
        return
    averaged = [tensor.is_floating_point() for tensor in ours]
    _copy(*_select(ours, theirs, [not flag for flag in averaged]))
    ours, theirs = _select(ours, theirs, averaged)
    if ours:
        _lerp(ours, theirs, 1 - decay)


@torch.no_grad()
def copy_weights(target: nn.Module, source: nn.Module) -> None:
    """Makes every parameter and buffer of `target` equal to those of `source`."""
    _copy(*_paired(target.parameters(), source.parameters()))
    _copy(*_paired(target.buffers(), source.buffers()))


def _lerp(ours: list[Tensor], theirs: list[Tensor], weight: float | Tensor) -> None:
    """Moves tensors towards others by a share; one on the device costs a copy of them, for a moment."""
    if isinstance(weight, Tensor):
        apart = torch._foreach_sub(theirs, ours)
        torch._foreach_mul_(apart, weight)
        torch._foreach_add_(ours, apart)
    else:
        torch._foreach_lerp_(ours, theirs, weight)


def _paired(ours: object, theirs: object) -> tuple[list[Tensor], list[Tensor]]:
    target, source = list(ours), list(theirs)  # type: ignore[call-overload]
    if [tensor.shape for tensor in target] != [tensor.shape for tensor in source]:
        raise ValueError("EMA needs two modules of the same architecture; their tensors differ in shape")
    return target, source


def _select(ours: list[Tensor], theirs: list[Tensor], keep: list[bool]) -> tuple[list[Tensor], list[Tensor]]:
    return [t for t, k in zip(ours, keep, strict=True) if k], [
        t for t, k in zip(theirs, keep, strict=True) if k
    ]


def _copy(ours: list[Tensor], theirs: list[Tensor]) -> None:
    if ours:
        torch._foreach_copy_(ours, theirs)
