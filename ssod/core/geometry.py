"""Boxes as numbers: projecting between views, clipping, jittering, overlap. Always float32, autocast off."""

from __future__ import annotations

import torch
from torch import Tensor


def project_boxes(boxes: Tensor, homography: Tensor, size: Tensor | None) -> Tensor:
    """Boxes seen through a homography: the hull of the four mapped corners, clipped to the target view.

    boxes (B, K, 4) xyxy px of the source view · homography (B, 3, 3) source px -> target px ·
    size (B, 2) height, width of the target view, None to let boxes stick out. Returns (B, K, 4) float32.

    Written elementwise instead of as a matrix product: under autocast a product runs in half precision,
    which moves corners by up to 12 px at 1333 px (measured on mmdet's bbox_project in bfloat16).
    """
    if homography.shape != (len(boxes), 3, 3):
        raise ValueError(f"homography must be ({len(boxes)}, 3, 3), got {tuple(homography.shape)}")
    with torch.autocast(boxes.device.type, enabled=False):
        left, top, right, bottom = boxes.float().unbind(-1)  # a list as index would be copied to the device
        x = torch.stack([left, right, right, left], dim=-1)  # (B, K, 4 corners)
        y = torch.stack([top, top, bottom, bottom], dim=-1)
        h = homography.float()[:, None, None]  # (B, 1, 1, 3, 3)
        depth = h[..., 2, 0] * x + h[..., 2, 1] * y + h[..., 2, 2]
        mapped_x = (h[..., 0, 0] * x + h[..., 0, 1] * y + h[..., 0, 2]) / depth
        mapped_y = (h[..., 1, 0] * x + h[..., 1, 1] * y + h[..., 1, 2]) / depth
        hull = torch.stack(
            [mapped_x.amin(-1), mapped_y.amin(-1), mapped_x.amax(-1), mapped_y.amax(-1)], dim=-1
        )
        return hull if size is None else clip_boxes(hull, size)


def clip_boxes(boxes: Tensor, size: Tensor) -> Tensor:
    """Boxes (B, ..., 4) cut at the border of their image; size (B, 2) is height, width in px."""
    limit = size.flip(-1).to(boxes.dtype).repeat(1, 2)  # (B, 4): w, h, w, h
    limit = limit.reshape(len(boxes), *([1] * (boxes.dim() - 2)), 4)
    return torch.minimum(boxes.clamp(min=0), limit)


def visible_share(before: Tensor, after: Tensor) -> Tensor:
    """The share (...) of each box's area that is left: area(after) / area(before), both (..., 4)."""
    return box_area(after) / box_area(before).clamp(min=1e-6)


def box_area(boxes: Tensor) -> Tensor:
    """Areas (...) in px² of boxes (..., 4); an inverted box has none."""
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(dim=-1)


def box_sides(boxes: Tensor) -> Tensor:
    """Width, height, width, height (..., 4) px of boxes (..., 4): a unit for each coordinate, at least 1."""
    sides = (boxes[..., 2:] - boxes[..., :2]).clamp(min=1)
    return torch.cat([sides, sides], dim=-1)


def jitter_boxes(
    boxes: Tensor, num_jitters: int, jitter_fraction: float = 0.06, uniform: bool = False
) -> Tensor:
    """Copies of each box with every coordinate moved by a random share of the box's side.

    boxes (B, K, 4) -> (B, num_jitters, K, 4). Offsets are normal with standard deviation
    `jitter_fraction` (released code of Soft Teacher) or uniform within ± `jitter_fraction` (the paper,
    section 3.3). Sides count as at least 1 px, so that a degenerate box still moves.
    """
    batch, slots, _ = boxes.shape
    shape = (batch, num_jitters, slots, 4)
    unit = (
        torch.rand(shape, device=boxes.device) * 2 - 1 if uniform else torch.randn(shape, device=boxes.device)
    )
    return boxes[:, None] + unit * (box_sides(boxes) * jitter_fraction)[:, None]


def pairwise_iou(first: Tensor, second: Tensor, eps: float = 1e-6) -> Tensor:
    """Intersection over union (..., K, N) of boxes (..., K, 4) with boxes (..., N, 4), in float32.

    Coordinate by coordinate, each in one piece: four times as fast on a CPU as with pairs of coordinates
    last, for half the memory.
    """
    first, second = first.float(), second.float()
    left, top, right, bottom = (each[..., None] for each in first.unbind(-1))  # (..., K, 1)
    columns = second.movedim(-1, 0).contiguous()
    left_too, top_too, right_too, bottom_too = (each[..., None, :] for each in columns)  # (..., 1, N)
    width = torch.minimum(right, right_too).sub_(torch.maximum(left, left_too)).clamp_(min=0)
    height = torch.minimum(bottom, bottom_too).sub_(torch.maximum(top, top_too)).clamp_(min=0)
    overlap = width * height
    del width, height  # of millions of pairs each is large
    union = (box_area(first)[..., None] + box_area(second)[..., None, :]).sub_(overlap)
    return overlap / union.clamp_(min=eps)
