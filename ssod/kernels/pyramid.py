"""RoIAlign on a CPU for all levels of a feature pyramid: into one result, from features as they lie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .gathering import gather, scatter
from .pooling import _Bins


class PyramidAlign(torch.autograd.Function):
    """The mean of the samples of each bin: rois (R, 5), each on its level -> (R, C, h, w).

    As `roi_align_forward` and its backward level by level, to the bit, but without a result of each level
    that is copied into that of all, and with the taps kept for the backward. Features with channels last are
    read where they lie, and so are their gradients.
    """

    @staticmethod
    def forward(
        ctx: Any, rois: Tensor, level: Tensor, layers: Sequence[dict[str, Any]], *features: Tensor
    ) -> Tensor:
        """rois (R, 5), level (R,) of each, layers: each level's options as `_Bins`, features (N, C, H, W)."""
        rows, columns = _Bins(**layers[0]).size
        # Zeros stay where a box that is inside out, or not a number, has no level.
        output = features[0].new_zeros(len(rois), features[0].shape[1], rows, columns)
        ctx.shapes, ctx.parts = [each.shape for each in features], []
        for number, (options, feature) in enumerate(zip(layers, features, strict=True)):
            chosen = (level == number).nonzero()[:, 0]  # sync: on a CPU nobody waits
            if len(chosen) == 0:
                ctx.parts.append(None)
                continue
            bins = _Bins(**options)
            taps = bins.taps(rois[chosen], feature.shape)
            means = gather(feature, taps).reshape(-1, rows, columns, feature.shape[1])
            chosen = chosen[taps.order]
            output[chosen] = means.movedim(-1, 1)
            ctx.parts.append((chosen, taps))
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """The gradient of each level's features, with channels last; None for rois."""
        by_channel = gradients[0].movedim(1, -1)
        found = []
        for shape, part in zip(ctx.shapes, ctx.parts, strict=True):
            images, channels, height, width = shape
            if part is None:
                pixels = by_channel.new_zeros(images * height * width, channels)
            else:
                chosen, taps = part
                pixels = scatter(by_channel[chosen].flatten(0, 2), taps, images * height * width)
            found.append(pixels.view(images, height, width, channels).movedim(-1, 1))
        return (None, None, None, *found)
