"""Deformable attention over several levels."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .precision import full_precision, wide

if TYPE_CHECKING:  # importing this module stays cheap: torch comes with the first kernel called
    from torch import Tensor


def _attend(value: Tensor, shapes: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    """(N, queries, channels) attention by mmcv's own PyTorch version; torchvision has none."""
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    # sync: grid_sample needs each level's height and width on the host.
    result: Tensor = multi_scale_deformable_attn_pytorch(value, shapes.tolist(), locations, weights)
    return result


@full_precision
def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """(N, queries, heads * d) samples of value (N, keys, heads, d) summed by attention weights.

    sampling_locations (N, queries, heads, levels, points, 2) lie in 0 .. 1.
    """
    tensors = wide(value, sampling_locations, attention_weights)
    return _attend(tensors[0], value_spatial_shapes, *tensors[1:]).to(value.dtype)


@full_precision
def ms_deform_attn_backward(*tensors: Tensor, im2col_step: int) -> None:
    """Nothing; the gradients become those of `ms_deform_attn_forward`, which is run again.

    tensors: the forward's five, its output's gradient, those of value, locations and weights.
    """
    import torch

    value, shapes, _, locations, weights, grad_output, *buffers = tensors
    value, locations, weights, grad_output = wide(value, locations, weights, grad_output)
    with torch.enable_grad():
        leaves = [tensor.detach().requires_grad_() for tensor in (value, locations, weights)]
        output = _attend(leaves[0], shapes, *leaves[1:])
    gradients = torch.autograd.grad(output, leaves, grad_output)
    for buffer, gradient in zip(buffers, gradients, strict=True):
        buffer.copy_(gradient)


OPERATIONS: tuple[Callable[..., Any], ...] = (ms_deform_attn_forward, ms_deform_attn_backward)
