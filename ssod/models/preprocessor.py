"""Loader output -> SemiBatch: pixels normalised on the device, homographies composed on the host."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmdet.structures.bbox import get_box_tensor
from torch import Tensor

from ..core.image_stack import ImageStack, common_size
from ..core.labels import BoxLabels
from ..errors import UserError
from ..registry import MODELS
from .views import SemiBatch, View


@MODELS.register_module()
class SemiPreprocessor(DetDataPreprocessor):  # type: ignore[misc]
    """mmdet's preprocessor, which also turns a batch of labeled, weak and strong views into a SemiBatch.

    Takes what DetDataPreprocessor takes (mean, std, bgr_to_rgb, pad_size_divisor); validation batches go
    through mmdet's own path. Labeled and strong images share one padded size: the student sees one batch.

    pad_to: None, or the longer and the shorter side (px) that every training batch is padded to, lying or
    standing as its images do, so that there are two sizes only (for torch.compile). A batch that has an
    image too large, or images of both kinds, keeps its size: `num_misfits` counts them, and the first one is
    warned of. That padding is cut off the features of two-stage detectors (`View.extent`), so there are no
    anchors in it; other detectors get their images without it. But convolutions look past the border of the
    batch's own size, where features change a little, as they do beside a larger image. BatchNorm that trains
    has it in its statistics. Raises UserError for other values.
    """

    def __init__(self, *args: Any, pad_to: Sequence[int] | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        fits = isinstance(pad_to, Sequence) and len(pad_to) == 2 and pad_to[0] >= pad_to[1] > 0
        if pad_to is not None and not fits:
            raise UserError(f"SemiPreprocessor: pad_to={pad_to}; use (longer side, shorter side) in px")
        self.pad_to = None if pad_to is None else (int(pad_to[0]), int(pad_to[1]))
        self.num_misfits = 0

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """`{"inputs": SemiBatch, "data_samples": None}` of training views, else what mmdet returns."""
        if "labeled" not in data:
            return dict(super().forward(data, training))
        stacks = {name: _stack(view["inputs"]) for name, view in data.items()}
        seen = [stacks[name] for name in ("labeled", "strong") if name in stacks]
        student = self._padded([size for stack in seen for size in stack.sizes])
        size = self._bucket(student)
        truth = self._labels(data["labeled"]["data_samples"])
        batch = SemiBatch(labeled=self._view(stacks["labeled"], student, size), truth=truth)
        if "strong" in stacks:
            strong = self._view(stacks["strong"], student, size)
            batch = replace(batch, strong=strong, strong_labels=self._offline(data["strong"]))
        if "weak" in stacks:
            extent = self._padded(stacks["weak"].sizes)
            forward, backward = self._homographies(
                data["weak"]["data_samples"], data["strong"]["data_samples"]
            )
            batch = replace(
                batch,
                weak=self._view(stacks["weak"], extent, self._bucket(extent)),
                weak_to_strong=forward,
                strong_to_weak=backward,
            )
        return {"inputs": batch, "data_samples": None}

    def _padded(self, sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
        """The height and width, multiples of the divisor, that hold all of `sizes`."""
        divisor = self.pad_size_divisor
        height, width = common_size(sizes)
        return -(-height // divisor) * divisor, -(-width // divisor) * divisor

    def _bucket(self, extent: tuple[int, int]) -> tuple[int, int]:
        """The height and width of `pad_to` for a batch of this size, its own where it doesn't fit."""
        if self.pad_to is None:
            return extent
        long, short = (-(-side // self.pad_size_divisor) * self.pad_size_divisor for side in self.pad_to)
        height, width = size = (short, long) if extent[1] >= extent[0] else (long, short)
        if extent[0] <= height and extent[1] <= width:
            return size
        if self.num_misfits == 0:
            warnings.warn(
                f"SemiPreprocessor: a batch of height x width {extent[0]} x {extent[1]} px does not fit "
                f"into pad_to={self.pad_to} and keeps its size; torch.compile makes another graph for it",
                stacklevel=2,
            )
        self.num_misfits += 1
        return extent

    def _view(self, stack: ImageStack, extent: tuple[int, int], padded: tuple[int, int]) -> View:
        """A View of a stack: moved as bytes in one copy, normalised on the device, padded with 0.

        padded: its height and width · extent: the least that would hold the images.
        """
        pixels = stack.to(self.device).pixels
        grown = padded[0] - pixels.shape[2], padded[1] - pixels.shape[3]
        if any(grown):
            pixels = functional.pad(pixels, (0, grown[1], 0, grown[0]))
        if self._channel_conversion:
            pixels = pixels.flip(1)
        # A copy of floats, too: they may be the loader's own.
        images = pixels.to(torch.float32, copy=True).sub_(self.mean).div_(self.std)
        size = torch.tensor(stack.sizes, dtype=torch.float32)
        anchored = (size / self.pad_size_divisor).ceil() * self.pad_size_divisor
        size, anchored = torch.stack((size, anchored)).to(self.device, non_blocking=True)
        if any(each != padded for each in stack.sizes):
            below = torch.arange(padded[0], device=self.device) >= size[:, :1]
            beside = torch.arange(padded[1], device=self.device) >= size[:, 1:]
            images.masked_fill_((below[:, :, None] | beside[:, None, :])[:, None], 0.0)
        return View(images, size, anchored, extent=None if padded == extent else extent)

    def _offline(self, strong: dict[str, Any]) -> BoxLabels | None:
        """The labels that came with the strong views from a file; None where no view has any."""
        samples = strong["data_samples"]
        return self._labels(samples) if all("scores" in each.gt_instances for each in samples) else None

    def _labels(self, samples: Sequence[Any]) -> BoxLabels:
        """The annotations of data samples, padded to the batch's largest count; scores 1 unless given."""
        instances = [sample.gt_instances for sample in samples]
        scores = [each.scores for each in instances] if all("scores" in i for i in instances) else None
        return self._moved(
            BoxLabels.pad(
                [get_box_tensor(each.bboxes) for each in instances],
                [each.labels for each in instances],
                scores,
            )
        )

    def _moved(self, labels: BoxLabels) -> BoxLabels:
        """Labels as `pad` makes them, on the device."""
        names = ("boxes", "classes", "scores", "valid")
        moved: dict[str, Any] = {
            name: getattr(labels, name).to(self.device, non_blocking=True) for name in names
        }
        return replace(labels, **moved)

    def _homographies(self, weak: Sequence[Any], strong: Sequence[Any]) -> tuple[Tensor, Tensor]:
        """weak -> strong and strong -> weak (U, 3, 3): composed in float64, handed over in float32."""
        to_weak = np.stack([np.asarray(s.homography_matrix, dtype=np.float64) for s in weak])
        to_strong = np.stack([np.asarray(s.homography_matrix, dtype=np.float64) for s in strong])
        forward = to_strong @ np.linalg.inv(to_weak)
        both = torch.from_numpy(np.stack([forward, np.linalg.inv(forward)])).float()
        both = both.to(self.device, non_blocking=True)
        return both[0], both[1]


def _stack(images: ImageStack | Sequence[Tensor]) -> ImageStack:
    """The stack that the loader made, or one of separate uint8 images (3, h, w)."""
    return images if isinstance(images, ImageStack) else ImageStack.of(images)
