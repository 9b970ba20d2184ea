"""Deformable convolutions, with and without modulation."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .precision import full_precision, torchvision_operators, wide

if TYPE_CHECKING:  # importing this module stays cheap: torch comes with the first kernel called
    from torch import Tensor


# Both in torchvision's order: stride, padding and dilation by row and column, groups.
_GEOMETRY = ("dH", "dW", "padH", "padW", "dilationH", "dilationW", "group", "deformable_group")
_MODULATED_GEOMETRY = (
    *("stride_h", "stride_w", "pad_h", "pad_w", "dilation_h", "dilation_w"),
    *("group", "deformable_group"),
)


def _no_mask(input: Tensor, weight: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    """The mask and bias that torchvision expects where there is neither."""
    return input.new_zeros(input.shape[0], 1), input.new_zeros(weight.shape[0])


def _deform_gradients(
    grad_output: Tensor, input: Tensor, weight: Tensor, offset: Tensor, options: dict[str, int]
) -> tuple[Tensor, ...]:
    """The gradients of input, weight and offset of the convolution without a mask."""
    tensors = wide(grad_output, input, weight, offset)
    geometry = [options[name] for name in _GEOMETRY]
    backward = torchvision_operators()._deform_conv2d_backward
    gradients: tuple[Tensor, ...] = backward(*tensors, *_no_mask(*tensors[1:]), *geometry, False)
    return gradients[:3]


@full_precision
def deform_conv_forward(
    input: Tensor, weight: Tensor, offset: Tensor, output: Tensor, *scratch: Tensor, **options: int
) -> None:
    """Nothing; output (N, D, h, w) becomes the convolution at offset (N, 2 G kh kw, h, w) places.

    mmcv's scratch tensors and its im2col_step are not needed.
    """
    tensors = wide(input, weight, offset)
    geometry = [options[name] for name in _GEOMETRY]
    output.copy_(torchvision_operators().deform_conv2d(*tensors, *_no_mask(*tensors), *geometry, False))


@full_precision
def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    weight: Tensor,
    *scratch: Tensor,
    **options: int,
) -> None:
    """Nothing; grad_input and grad_offset become the gradients of `deform_conv_forward`."""
    gradients = _deform_gradients(grad_output, input, weight, offset, options)
    grad_input.copy_(gradients[0])
    grad_offset.copy_(gradients[2])


@full_precision
def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_weight: Tensor,
    *scratch: Tensor,
    scale: float,
    **options: int,
) -> None:
    """Nothing; grad_weight becomes scale times the gradient of `deform_conv_forward`.

    mmcv asks in two calls and torchvision answers all at once, so the work is done twice. mmcv
    leaves the weight out of this one, and its gradient does not depend on it: zeros will do.
    """
    import torch

    zeros = torch.zeros_like(grad_weight)
    gradients = _deform_gradients(grad_output, input, zeros, offset, options)
    grad_weight.copy_(gradients[1] * scale)


@full_precision
def modulated_deform_conv_forward(*tensors: Tensor, with_bias: bool, **options: int) -> None:
    """Nothing; the output becomes the convolution of samples times mask (N, G kh kw, h, w).

    tensors: input, weight, bias, scratch, offset, mask, output (N, D, h, w), scratch.
    """
    input, weight, bias, _, offset, mask, output, _ = tensors
    bias = bias if with_bias else bias.new_zeros(weight.shape[0])
    geometry = [options[name] for name in _MODULATED_GEOMETRY]
    full = wide(input, weight, offset, mask, bias)
    output.copy_(torchvision_operators().deform_conv2d(*full, *geometry, True))


@full_precision
def modulated_deform_conv_backward(*tensors: Tensor, with_bias: bool, **options: int) -> None:
    """Nothing; the gradients become those of `modulated_deform_conv_forward`.

    tensors: input, weight, bias, scratch, offset, mask, scratch, the gradients of input, weight,
    bias, offset and mask, and that of the output.
    """
    input, weight, bias, _, offset, mask, _, *buffers, grad_output = tensors
    bias = bias if with_bias else bias.new_zeros(weight.shape[0])
    geometry = [options[name] for name in _MODULATED_GEOMETRY]
    full = wide(grad_output, input, weight, offset, mask, bias)
    gradients = torchvision_operators()._deform_conv2d_backward(*full, *geometry, True)
    grad_input, grad_weight, grad_bias, grad_offset, grad_mask = buffers
    ordered = [grad_input, grad_weight, grad_offset, grad_mask, *([grad_bias] if with_bias else [])]
    for buffer, gradient in zip(ordered, gradients, strict=False):  # without bias one is left over
        buffer.copy_(gradient)


OPERATIONS: tuple[Callable[..., Any], ...] = (
    deform_conv_forward,
    deform_conv_backward_input,
    deform_conv_backward_parameters,
    modulated_deform_conv_forward,
    modulated_deform_conv_backward,
)
