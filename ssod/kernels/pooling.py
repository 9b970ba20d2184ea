"""RoIAlign and RoIPool."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from .gathering import Taps, find_taps, gather, scatter
from .precision import full_precision, torchvision_operators, wide

if TYPE_CHECKING:  # importing this module stays cheap: torch comes with the first kernel called
    from torch import Tensor


@dataclasses.dataclass(frozen=True)
class _Bins:
    """mmcv's options of RoIAlign: output size in bins, feature pixels per image pixel, sampling."""

    aligned_height: int
    aligned_width: int
    spatial_scale: float
    sampling_ratio: int  # samples per bin and axis; 0 for one per feature pixel
    pool_mode: int  # 0 maximum, 1 mean
    aligned: bool

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of bins."""
        return self.aligned_height, self.aligned_width

    @property
    def common(self) -> tuple[float, int, int]:
        """The three arguments torchvision's operators share."""
        return self.spatial_scale, self.aligned_height, self.aligned_width

    def grids(self, rois: Tensor) -> Iterator[tuple[Any, int, int]]:
        """Groups of rois with equal sample grids: an index into rois, rows and columns per bin."""
        import torch

        if self.sampling_ratio > 0:
            yield slice(None), self.sampling_ratio, self.sampling_ratio
            return
        shift = 0.5 if self.aligned else 0.0
        sides = (rois[:, 3:] * self.spatial_scale - shift) - (rois[:, 1:3] * self.spatial_scale - shift)
        per_bin = [sides[:, 1] / self.aligned_height, sides[:, 0] / self.aligned_width]
        # An empty roi has no sample in mmcv and pools to the lowest number; here it keeps one. That
        # is also what a roi of less than a pixel has where it is not aligned and widened to one, and
        # one that is no number.
        grids = torch.stack(per_bin, dim=1).ceil().clamp(min=1).nan_to_num(1.0, 1.0)
        # sync: the kernel's output shape depends on the grid. Only for the rare maximum.
        for rows, columns in sorted({(int(row), int(column)) for row, column in grids.tolist()}):
            chosen = (grids[:, 0] == rows) & (grids[:, 1] == columns)
            yield chosen.nonzero()[:, 0], rows, columns

    def taps(self, rois: Tensor, shape: tuple[int, ...]) -> Taps:
        """Where the mean of each bin comes from, in features of a shape (N, C, H, W)."""
        adaptive = self.sampling_ratio <= 0
        return find_taps(rois, self.grids(rois), self.size, self.spatial_scale, self.aligned, adaptive, shape)

    def per_sample(self, rows: int, columns: int) -> tuple[float, int, int]:
        """`common` with one output cell per sample in place of one per bin."""
        return self.spatial_scale, self.aligned_height * rows, self.aligned_width * columns


@full_precision
def roi_align_forward(
    input: Tensor, rois: Tensor, output: Tensor, argmax_y: Tensor, argmax_x: Tensor, **options: Any
) -> None:
    """Nothing; output (K, C, h, w) becomes the mean or maximum of the samples in each bin.

    input (N, C, H, W), rois (K, 5) rows of image index and corners in pixels, options as `_Bins`.
    torchvision averages only; the maximum is taken over its output at one cell per sample. The
    argmax is then the sample's row and column in its bin, where mmcv's is a place in the image.
    """
    bins, align = _Bins(**options), torchvision_operators().roi_align
    features, boxes = wide(input, rois)
    if bins.pool_mode == 1 and _on_cpu(boxes):
        taps = bins.taps(boxes, features.shape)
        means = gather(features, taps).reshape(-1, *bins.size, input.shape[1])
        output[taps.order] = means.movedim(-1, 1).to(output.dtype)
        return
    if bins.pool_mode == 1:
        output.copy_(align(features, boxes, *bins.common, bins.sampling_ratio, bins.aligned))
        return
    for group, rows, columns in bins.grids(boxes):
        fine = align(features, boxes[group], *bins.per_sample(rows, columns), 1, bins.aligned)
        split = (*fine.shape[:2], bins.aligned_height, rows, bins.aligned_width, columns)
        best, where = fine.reshape(split).transpose(3, 4).flatten(-2).max(-1)
        output[group] = best.to(output.dtype)
        argmax_y[group] = where.div(columns, rounding_mode="floor").to(argmax_y.dtype)
        argmax_x[group] = where.remainder(columns).to(argmax_x.dtype)


@full_precision
def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    **options: Any,
) -> None:
    """Nothing; grad_input (N, C, H, W), zeros before, becomes the gradient of the forward."""
    bins, align = _Bins(**options), torchvision_operators()._roi_align_backward
    grad, boxes = wide(grad_output, rois)
    shape = tuple(grad_input.shape)
    if bins.pool_mode == 1 and _on_cpu(boxes):
        _as_channels_last(grad_input)
        taps = bins.taps(boxes, shape)
        by_bin = grad.movedim(1, -1)[taps.order].flatten(0, 2)
        by_pixel = scatter(by_bin, taps, grad_input[:, 0].numel())
        grad_input.copy_(by_pixel.reshape(grad_input.movedim(1, -1).shape).movedim(-1, 1))
        return
    if bins.pool_mode == 1:
        common = bins.common
        grad_input.copy_(align(grad, boxes, *common, *shape, bins.sampling_ratio, bins.aligned))
        return
    for group, rows, columns in bins.grids(boxes):
        where = (argmax_y[group].long() * columns + argmax_x[group].long())[..., None]
        cells = grad.new_zeros(*where.shape[:-1], rows * columns)
        cells.scatter_(-1, where, grad[group][..., None])
        fine = cells.reshape(*cells.shape[:-1], rows, columns).transpose(3, 4)
        fine = fine.flatten(4).flatten(2, 3)
        common = bins.per_sample(rows, columns)
        part = align(fine, boxes[group], *common, *shape, 1, bins.aligned)
        grad_input.add_(part.to(grad_input.dtype))


def _on_cpu(rois: Tensor) -> bool:
    """Whether there are rois, and on a CPU, where looking up is faster than torchvision's kernel."""
    return rois.device.type == "cpu" and len(rois) > 0


def _as_channels_last(buffer: Tensor) -> None:
    """Nothing; a buffer (N, C, H, W) of zeros has its channels last in memory from here on."""
    _, channels, height, width = buffer.shape
    buffer.as_strided_(buffer.shape, (channels * height * width, 1, width * channels, channels))


def _pooling_cells(
    rois: Tensor, bins: tuple[int, int], size: tuple[int, int], scale: float
) -> tuple[Tensor, Tensor]:
    """((K * h * w, 5) one roi in whole pixels per bin, (K, 1, h, w) bool of the empty bins).

    bins (h, w) per roi; size (H, W) of the features. Last pixels are included, as in torchvision.
    """
    import torch

    edges = []
    for axis in (0, 1):  # rows, columns
        start = rois[:, 2 - axis, None] * scale
        side = (rois[:, 4 - axis, None] + 1) * scale - start
        step = torch.arange(bins[axis], device=rois.device, dtype=rois.dtype)
        first = (step * (side / bins[axis]) + start).floor().clamp(0, size[axis])
        last = ((step + 1) * (side / bins[axis]) + start).ceil().clamp(0, size[axis])
        edges.append((first, torch.where(side > 0, last, first)))
    (top, bottom), (left, right) = edges
    top, bottom, left, right = top[:, :, None], bottom[:, :, None], left[:, None], right[:, None]
    empty = (right <= left) | (bottom <= top)
    parts = (rois[:, :1, None], left, top, right - 1, bottom - 1)
    cells = torch.stack([part.expand(empty.shape) for part in parts], dim=-1).reshape(-1, 5)
    return cells, empty[:, None]


@full_precision
def roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Nothing; output (K, C, h, w) becomes each bin's maximum, argmax its flat pixel, -1 if none.

    mmcv divides the unrounded roi into bins, torchvision rounds the roi first. To keep mmcv's
    bins each is handed to torchvision as a roi of its own, in whole pixels and pooled to one cell.
    """
    features, boxes = wide(input, rois)
    bins, size = (pooled_height, pooled_width), (input.shape[2], input.shape[3])
    cells, empty = _pooling_cells(boxes, bins, size, spatial_scale)
    best, where = torchvision_operators().roi_pool(features, cells, 1.0, 1, 1)
    shape = (len(rois), *bins, input.shape[1])
    output.copy_(best.reshape(shape).movedim(-1, 1).masked_fill(empty, 0))
    argmax.copy_(where.reshape(shape).movedim(-1, 1).masked_fill(empty, -1))


@full_precision
def roi_pool_backward(
    grad_output: Tensor, rois: Tensor, argmax: Tensor, grad_input: Tensor, **options: Any
) -> None:
    """Nothing; grad_input (N, C, H, W) becomes the gradient of `roi_pool_forward`."""
    grad, boxes = wide(grad_output, rois)
    channels, bins = grad.shape[1], grad.shape[2] * grad.shape[3]
    cells = boxes.repeat_interleave(bins, dim=0)  # the backward reads only each roi's image
    grad, where = (
        tensor.movedim(1, -1).reshape(-1, channels, 1, 1).contiguous() for tensor in (grad, argmax)
    )
    shape = tuple(grad_input.shape)
    grad_input.copy_(torchvision_operators()._roi_pool_backward(grad, cells, where, 1.0, 1, 1, *shape))


OPERATIONS: tuple[Callable[..., Any], ...] = (
    roi_align_forward,
    roi_align_backward,
    roi_pool_forward,
    roi_pool_backward,
)
