"""The exponential moving average of one module's weights in another, in few operators and without a wait."""

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
    decay: float,
    buffers: Literal["copy", "average"] = "copy",
    taken: Tensor | None = None,
) -> None:
    """θ_target ← decay · θ_target + (1 - decay) · θ_source, over all parameters at once.

    Buffers are copied by default: BatchNorm statistics must belong to the weights they were measured with.
    Integer buffers are always copied. A source with an inf or a nan anywhere changes nothing, nor does one
    for which `taken`, a bool on the device, is False; nobody waits to know. That costs a copy of the source,
    for a moment.
    """
    ours, theirs = _paired(target.parameters(), source.parameters())
    our_buffers, their_buffers = _paired(target.buffers(), source.buffers())
    good = _all_finite(theirs + their_buffers)
    good = good if taken is None else good & taken
    torch._foreach_lerp_(ours, _where(good, theirs, ours), 1 - decay)
    their_buffers = _where(good, their_buffers, our_buffers)
    if buffers == "copy":
        _copy(our_buffers, their_buffers)
        return
    averaged = [tensor.is_floating_point() for tensor in our_buffers]
    _copy(*_select(our_buffers, their_buffers, [not flag for flag in averaged]))
    ours, theirs = _select(our_buffers, their_buffers, averaged)
    if ours:
        torch._foreach_lerp_(ours, theirs, 1 - decay)


@torch.no_grad()
def copy_weights(target: nn.Module, source: nn.Module) -> None:
    """Makes every parameter and buffer of `target` equal to those of `source`."""
    _copy(*_paired(target.parameters(), source.parameters()))
    _copy(*_paired(target.buffers(), source.buffers()))


def _all_finite(tensors: list[Tensor]) -> Tensor:
    """Whether no tensor holds an inf or a nan, nor numbers of near 1e19: a bool that stays on the device."""
    numbers = [each for each in tensors if each.is_floating_point()]
    return torch.stack(torch._foreach_norm(numbers)).isfinite().all()


def _where(flag: Tensor, theirs: list[Tensor], ours: list[Tensor]) -> list[Tensor]:
    """Tensors where the flag is True, else others; not a product, for 0 times nan is nan."""
    return [torch.where(flag, one, other) for one, other in zip(theirs, ours, strict=True)]


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
