"""View and SemiBatch: what one training step sees of its images."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from ..core.labels import BoxLabels


@dataclass(frozen=True)
class View:
    """One augmented look at each of B images.

    images (B, 3, H, W) normalised and padded · size (B, 2) height, width before padding, px ·
    padded (B, 2) the same rounded up to the stride divisor: where anchors exist for mmdet ·
    extent: height, width of the least that holds all images, where `images` are padded beyond it
    (SemiPreprocessor's `pad_to`): what lies outside is cut off the features; None where they are not.
    """

    images: Tensor
    size: Tensor
    padded: Tensor
    extent: tuple[int, int] | None = None

    def within_extent(self) -> View:
        """The view without what lies beyond its extent."""
        if self.extent is None:
            return self
        height, width = self.extent
        return replace(self, images=self.images[..., :height, :width].contiguous(), extent=None)


@dataclass(frozen=True)
class SemiBatch:
    """L labeled images with their truth and U unlabeled ones in two views; a supervised batch has U = 0.

    weak_to_strong, strong_to_weak (U, 3, 3) float32 map pixels of one view to the other.
    strong_labels: offline pseudo labels in the strong view's pixels, or None; weak may then be None.
    """

    labeled: View
    truth: BoxLabels
    weak: View | None = None
    strong: View | None = None
    weak_to_strong: Tensor | None = None
    strong_to_weak: Tensor | None = None
    strong_labels: BoxLabels | None = None
