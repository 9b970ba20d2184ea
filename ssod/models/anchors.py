"""The anchors of all levels of a pyramid, and where they stand: mmdet's, in a few operators."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor


def grid_anchors(
    generator: Any, sizes: Sequence[tuple[int, int]], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Anchors (N, 4) xyxy px of maps of these sizes (rows, columns), and y, x px (N, 2) of their cells.

    generator: mmdet's AnchorGenerator. In its order: level, row, column, anchor of the cell. Where all levels
    have as many anchors a cell it takes the same dozen operators however many levels there are.
    """
    bases = torch.stack(generator.base_anchors) if _is_uniform(generator) else None
    if bases is None:
        return _level_by_level(generator, sizes, device)
    counts = [height * width for height, width in sizes]
    starts = [0, *accumulate(counts)]
    strides = generator.strides  # (x, y) px
    rows = [starts[:-1], [width for _, width in sizes], *zip(*strides, strict=True)]
    table = torch.tensor(rows).to(device, non_blocking=True)  # (4, levels)
    cell = torch.arange(starts[-1], device=device)
    level = torch.bucketize(cell, table[0], right=True) - 1
    first, width, right, down = table[:, level].unbind(0)
    cell = cell - first
    y = cell.div(width, rounding_mode="floor")
    x = (cell - y * width) * right
    y = y * down
    corners = torch.stack([x, y, x, y], dim=1).float()[:, None]
    anchors = bases.to(device, non_blocking=True)[level] + corners  # (cells, anchors, 4)
    cells = torch.stack([y, x], dim=1).float()[:, None].expand(-1, anchors.shape[1], -1)
    return anchors.flatten(0, 1), cells.flatten(0, 1)


def _is_uniform(generator: Any) -> bool:
    """Whether it is an AnchorGenerator as mmdet has it, with as many anchors for a cell on all levels."""
    known = type(generator).__name__ == "AnchorGenerator" and not generator.use_box_type
    whole = all(isinstance(side, int) for stride in generator.strides for side in stride)
    return known and whole and len(set(generator.num_base_priors)) == 1


def _level_by_level(
    generator: Any, sizes: Sequence[tuple[int, int]], device: torch.device
) -> tuple[Tensor, Tensor]:
    """The same of any generator of anchors."""
    anchors = torch.cat(generator.grid_priors(list(sizes), dtype=torch.float32, device=device))
    cells = []
    for (height, width), stride, count in zip(
        sizes, generator.strides, generator.num_base_priors, strict=True
    ):
        y = torch.arange(height, device=device) * stride[1]
        x = torch.arange(width, device=device) * stride[0]
        grid = torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1)
        cells.append(grid.reshape(-1, 1, 2).expand(-1, count, -1).reshape(-1, 2))
    return anchors, torch.cat(cells).float()
