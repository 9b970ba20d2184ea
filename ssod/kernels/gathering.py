"""RoIAlign's mean on a CPU as one sparse matrix: bins x pixels, times the features with channels last.

torchvision's CPU kernel walks the features channel by channel. With channels last a pixel is one row of C
numbers, and a bin a weighted sum of rows, four for each of its samples. So the forward is one lookup with
weights (`embedding_bag`) and the gradient another one with the matrix transposed: no row is written twice,
and sums come in a fixed order.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:  # importing this module stays cheap: torch comes with the first kernel called
    from torch import Tensor


class Taps(NamedTuple):
    """The matrix by rows: row b has weights[starts[b] : starts[b + 1]] in the columns pixels[...].

    A row is a bin, h * w rows in a row are a roi; a column is a pixel, counted through (N, H, W).
    """

    pixels: Tensor  # (T,) int32, or int64 where that is too small
    weights: Tensor  # (T,)
    starts: Tensor  # (K * h * w + 1,), of the pixels' type
    order: Tensor  # (K,) int64: the roi that the k-th block of rows belongs to


def find_taps(
    rois: Tensor,
    groups: Iterable[tuple[Any, int, int]],
    bins: tuple[int, int],
    scale: float,
    aligned: bool,
    adaptive: bool,
    shape: tuple[int, ...],
) -> Taps:
    """The taps of rois (K, 5) on features (N, C, H, W) of that shape, in torchvision's arithmetic.

    groups: indices of rois with equal grids, and the samples per bin along y and x; adaptive: the grids
    follow the rois' sizes, and an empty roi has no sample.
    """
    import torch

    images, _, height, width = shape
    kind = torch.int32 if images * height * width < 2**31 else torch.int64
    pixels, weights, sizes, order = [], [], [], []
    every = torch.arange(len(rois))
    for group, rows, columns in groups:
        some = rois[group]
        start = some[:, 1:] * scale - (0.5 if aligned else 0.0)
        left, top, right, bottom = start.unbind(1)
        y, weight_y = _taps_along(top, bottom, bins[0], rows, height, aligned, adaptive)
        x, weight_x = _taps_along(left, right, bins[1], columns, width, aligned, adaptive)
        first_row = some[:, 0].long() * height
        place = (first_row[:, None, None] + y)[:, :, None, :, None] * width + x[:, None, :, None, :]
        weight = weight_y[:, :, None, :, None] * weight_x[:, None, :, None, :]
        pixels.append(place.to(kind).flatten())
        weights.append(weight.flatten())
        sizes.append(torch.full((len(some) * bins[0] * bins[1],), 4 * rows * columns, dtype=kind))
        order.append(every[group])
    starts = torch.cat([torch.zeros(1, dtype=kind), *sizes]).cumsum(0, dtype=kind)
    return Taps(torch.cat(pixels), torch.cat(weights), starts, torch.cat(order))


def _taps_along(
    low: Tensor, high: Tensor, bins: int, samples: int, size: int, aligned: bool, adaptive: bool
) -> tuple[Tensor, Tensor]:
    """The pixels (K, bins, 2 * samples) that each bin reads along one axis, and their weights.

    low, high (K,) in pixels of the features, of which there are `size`. Each sample lies between two pixels;
    one that is more than a pixel outside counts as 0.
    """
    import torch

    side = high - low if aligned else (high - low).clamp(min=1)
    bin_side = (side / bins)[:, None, None]
    bin_start = low[:, None] + torch.arange(bins) * bin_side[:, 0]
    place = bin_start[:, :, None] + (torch.arange(samples) + 0.5) * bin_side / samples  # (K, bins, samples)
    inside = (place >= -1) & (place <= size)
    if adaptive:
        inside &= side[:, None, None] > 0
    place = torch.where(inside, place, 0.0).clamp(0, size - 1)  # a roi that is not a number reads pixel 0
    first = place.floor()
    fraction = place - first
    share = inside / samples
    pixels = torch.stack([first, (first + 1).clamp(max=size - 1)], dim=-1).long()
    weights = torch.stack([(1 - fraction) * share, fraction * share], dim=-1)
    return pixels.flatten(2), weights.flatten(2)


def gather(features: Tensor, taps: Taps) -> Tensor:
    """(K * h * w, C) the bins: the matrix times features (N, C, H, W)."""
    import torch

    rows = features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])
    return torch.nn.functional.embedding_bag(
        taps.pixels,
        rows,
        taps.starts,
        mode="sum",
        per_sample_weights=taps.weights,
        include_last_offset=True,
    )


def scatter(bins: Tensor, taps: Taps, num_pixels: int) -> Tensor:
    """(num_pixels, C) the gradient of the features: the matrix transposed times that of the bins."""
    import torch
    from scipy.sparse import csr_array

    matrix = csr_array(
        (taps.weights.numpy(), taps.pixels.numpy(), taps.starts.numpy()), shape=(len(bins), num_pixels)
    ).tocsc()
    return torch.nn.functional.embedding_bag(
        torch.from_numpy(matrix.indices),
        bins,
        torch.from_numpy(matrix.indptr),
        mode="sum",
        per_sample_weights=torch.from_numpy(matrix.data),
        include_last_offset=True,
    )
