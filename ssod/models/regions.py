"""The features of boxes on a pyramid, by the means of the device: without waits, or without waste."""

from __future__ import annotations

from functools import reduce
from typing import Any

import torch
from torch import Tensor

from .. import kernels
from ..kernels.pyramid import PyramidAlign
from . import suppression

FAR = -1e6  # px; where a box is that a level has nothing to do with: RoIAlign reads nothing there


def rois_of(boxes: Tensor, first: int) -> Tensor:
    """Boxes (B, S, 4) as mmdet's rois (B * S, 5): image row, from `first` on, then the box."""
    rows = torch.arange(first, first + len(boxes), device=boxes.device, dtype=boxes.dtype)
    return torch.cat([rows[:, None, None].expand(-1, boxes.shape[1], 1), boxes], dim=-1).flatten(0, 1)


def distinct(rois: Tensor) -> tuple[Tensor, Tensor | None]:
    """Rois (D, 5) without repetition, and the place of each of (R, 5) in them; as they are where hosts wait.

    Repeated are padding, which is one box, and whatever two groups of boxes have in common.
    """
    if suppression.host_waits(rois.device) or len(rois) == 0:
        return rois, None
    found, place = torch.unique(rois, dim=0, return_inverse=True)  # sync: on a CPU nobody waits
    return (rois, None) if len(found) == len(rois) else (found, place)


def region_features(extractor: Any, levels: list[Tensor], rois: Tensor) -> Tensor:
    """Features (R, C, h, w) of rois (R, 5) on float32 levels (N, C, H, W), those of mmdet's extractor.

    Its own loop waits for the device once per level. On a device every level gets all rois here, those that
    are not its own out of sight, where the kernel has nothing to read. On a CPU it is one sparse product.
    """
    on_device = suppression.host_waits(rois.device)
    ours = on_device or (kernels.active() == "torchvision" and len(rois) > 0)
    if not (ours and _is_known(extractor) and len(levels) > 1):
        features: Tensor = extractor(levels, rois)
        return features
    level, layers = extractor.map_roi_levels(rois, len(levels)), extractor.roi_layers
    if not on_device:
        found: Tensor = PyramidAlign.apply(rois, level, [_options(each) for each in layers], *levels)
        return found
    number = torch.arange(len(levels), device=rois.device)[:, None]
    place = torch.arange(5, device=rois.device) > 0  # not the image's row
    apart = rois.masked_fill((level != number)[..., None] & place, FAR)  # (levels, R, 5)
    parts = (layer(each, some) for layer, each, some in zip(layers, levels, apart, strict=True))
    total: Tensor = reduce(Tensor.add_, parts)
    return total


def _options(layer: Any) -> dict[str, Any]:
    """The options of mmcv's RoIAlign as its kernel takes them."""
    return dict(
        aligned_height=layer.output_size[0],
        aligned_width=layer.output_size[1],
        spatial_scale=layer.spatial_scale,
        sampling_ratio=layer.sampling_ratio,
        pool_mode=1,
        aligned=layer.aligned,
    )


def _is_known(extractor: Any) -> bool:
    """Whether it is mmdet's SingleRoIExtractor, which takes means of one level for each roi."""
    kinds = {type(layer).__name__ for layer in extractor.roi_layers}
    means = all(getattr(layer, "pool_mode", None) == "avg" for layer in extractor.roi_layers)
    return type(extractor).__name__ == "SingleRoIExtractor" and kinds == {"RoIAlign"} and means
