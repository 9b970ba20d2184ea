"""Loader output -> SemiBatch: pixels normalised on the device, homographies composed on the host."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmdet.structures.bbox import get_box_tensor
from torch import Tensor

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
    anchors in it; but convolutions look past the border of the batch's own size, where features change a
    little, as they do beside a larger image. BatchNorm that trains has it in its statistics. Raises UserError
    for other values.
    """

    def __init__(self, *args: Any, pad_to: Sequence[int] | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        if pad_to is not None and (len(pad_to) != 2 or not pad_to[0] >= pad_to[1] > 0):
            raise UserError(f"SemiPreprocessor: pad_to={pad_to}; use (longer side, shorter side) in px")
        self.pad_to = None if pad_to is None else (int(pad_to[0]), int(pad_to[1]))
        self.num_misfits = 0

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """`{"inputs": SemiBatch, "data_samples": None}` of training views, else what mmdet returns."""
        if "labeled" not in data:
            return dict(super().forward(data, training))
        student = [name for name in ("labeled", "strong") if name in data]
        extent = self._common_size([image for name in student for image in data[name]["inputs"]])
        size = self._bucket(extent)
        views = {name: self._padded_view(data[name]["inputs"], extent, size) for name in student}
        truth = self._labels(data["labeled"]["data_samples"])
        batch = SemiBatch(labeled=views["labeled"], truth=truth)
        if "strong" in data:
            batch = replace(batch, strong=views["strong"], strong_labels=self._offline(data["strong"]))
        if "weak" in data:
            weak = data["weak"]["inputs"]
            extent = self._common_size(weak)
            forward, backward = self._homographies(
                data["weak"]["data_samples"], data["strong"]["data_samples"]
            )
            batch = replace(
                batch,
                weak=self._padded_view(weak, extent, self._bucket(extent)),
                weak_to_strong=forward,
                strong_to_weak=backward,
            )
        return {"inputs": batch, "data_samples": None}

    def _common_size(self, images: Sequence[Tensor]) -> tuple[int, int]:
        """The padded height and width that hold all of `images` (3, h, w)."""
        divisor = self.pad_size_divisor
        height = max(image.shape[1] for image in images)
        width = max(image.shape[2] for image in images)
        return -(-height // divisor) * divisor, -(-width // divisor) * divisor

    def _padded_view(self, images: Sequence[Tensor], extent: tuple[int, int], size: tuple[int, int]) -> View:
        """A View of images padded to `size` (height, width); `extent` is the least that holds them."""
        return replace(self._view(images, *size), extent=None if size == extent else extent)

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

    def _view(self, images: Sequence[Tensor], height: int, width: int) -> View:
        """A View of uint8 images (3, h, w): moved as bytes, normalised on the device, padded with 0."""
        stack = torch.zeros(len(images), 3, height, width, device=self.device)
        for row, image in zip(stack, images, strict=True):
            pixels = image.to(self.device, non_blocking=True).float()
            if self._channel_conversion:
                pixels = pixels.flip(0)
            row[:, : image.shape[1], : image.shape[2]] = (pixels - self.mean) / self.std
        size = torch.tensor([image.shape[1:] for image in images], dtype=torch.float32)
        padded = (size / self.pad_size_divisor).ceil() * self.pad_size_divisor
        return View(images=stack, size=size.to(self.device), padded=padded.to(self.device))

    def _offline(self, strong: dict[str, Any]) -> BoxLabels | None:
        """The labels that came with the strong views from a file; None where no view has any."""
        samples = strong["data_samples"]
        return self._labels(samples) if all("scores" in each.gt_instances for each in samples) else None

    def _labels(self, samples: Sequence[Any]) -> BoxLabels:
        """The annotations of data samples, padded to the batch's largest count; scores 1 unless given."""
        instances = [sample.gt_instances for sample in samples]
        scores = [each.scores for each in instances] if all("scores" in i for i in instances) else None
        return BoxLabels.pad(
            [get_box_tensor(each.bboxes).to(self.device) for each in instances],
            [each.labels.to(self.device) for each in instances],
            scores,
        )

    def _homographies(self, weak: Sequence[Any], strong: Sequence[Any]) -> tuple[Tensor, Tensor]:
        """weak -> strong and strong -> weak (U, 3, 3): composed in float64, handed over in float32."""
        to_weak = np.stack([np.asarray(s.homography_matrix, dtype=np.float64) for s in weak])
        to_strong = np.stack([np.asarray(s.homography_matrix, dtype=np.float64) for s in strong])
        forward = to_strong @ np.linalg.inv(to_weak)
        both = torch.from_numpy(np.stack([forward, np.linalg.inv(forward)])).float().to(self.device)
        return both[0], both[1]
