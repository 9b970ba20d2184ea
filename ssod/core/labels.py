"""BoxLabels: truth and pseudo labels as one padded value, so that a filter is a mask and never an index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .geometry import clip_boxes, project_boxes, visible_share


@dataclass(frozen=True)
class BoxLabels:
    """Boxes of B images in K slots each; a slot that is not `valid` means nothing.

    boxes (B, K, 4) float32 xyxy pixels of one view · classes (B, K) int64 in [0, C) ·
    scores (B, K) float32, 1 for annotations · valid (B, K) bool ·
    spread (B, K) float32 or None: how far jittered copies of the box disagree, relative to its size ·
    ignored (B, K) bool or None: slots that are not `valid`, yet whose boxes must not pass for background ·
    taught (B,) bool or None: images that have any loss at all; None is every image.
    """

    boxes: Tensor
    classes: Tensor
    scores: Tensor
    valid: Tensor
    spread: Tensor | None = None
    ignored: Tensor | None = None
    taught: Tensor | None = None

    def __post_init__(self) -> None:
        slots = tuple(self.boxes.shape[:-1])
        named = {"classes": self.classes, "scores": self.scores, "valid": self.valid}
        optional = {"spread": self.spread, "ignored": self.ignored}
        named |= {name: tensor for name, tensor in optional.items() if tensor is not None}
        if self.boxes.dim() != 3 or self.boxes.shape[-1] != 4:
            raise ValueError(f"boxes must be (B, K, 4), got {tuple(self.boxes.shape)}")
        for name, tensor in named.items():
            if tuple(tensor.shape) != slots:
                raise ValueError(f"{name} must be {slots} like boxes, got {tuple(tensor.shape)}")
        if self.taught is not None and self.taught.shape != self.valid.shape[:1]:
            raise ValueError(f"taught must be {slots[:1]}, got {tuple(self.taught.shape)}")

    def where(self, mask: Tensor) -> BoxLabels:
        """The same labels, valid or ignored only where `mask` (B, K) also holds."""
        ignored = None if self.ignored is None else self.ignored & mask
        return replace(self, valid=self.valid & mask, ignored=ignored)

    def score_above(self, min_score: float | Tensor) -> BoxLabels:
        """Labels whose score exceeds `min_score` (a number, or broadcastable to (B, K))."""
        return self.where(self.scores > min_score)

    def spread_below(self, max_spread: float) -> BoxLabels:
        """Labels on whose place jittered copies agree to better than `max_spread`."""
        if self.spread is None:
            raise ValueError("these labels carry no spread; measure it with box jitter first")
        return self.where(self.spread < max_spread)

    def with_boxes(self, boxes: Tensor, min_side: float = 1e-2) -> BoxLabels:
        """The same labels at other places (B, K, 4); sides not above `min_side` px mean nothing."""
        sides = boxes[..., 2:] - boxes[..., :2]
        return replace(self, boxes=boxes).where((sides > min_side).all(dim=-1))

    def class_agnostic(self) -> BoxLabels:
        """The same boxes, all of class 0: what an RPN learns from."""
        return replace(self, classes=torch.zeros_like(self.classes))

    def first(self, num: int) -> BoxLabels:
        """The first `num` slots of each image; after NMS those are the ones of the highest score."""
        names = ("boxes", "classes", "scores", "valid", "spread", "ignored")
        slots = {name: getattr(self, name) for name in names}
        cut: dict[str, Any] = {name: None if each is None else each[:, :num] for name, each in slots.items()}
        return replace(self, **cut)

    def skip_empty(self) -> BoxLabels:
        """The same labels; an image without a valid one has no loss, instead of being all background."""
        return replace(self, taught=self.valid.any(dim=1))

    def per_image(self) -> Tensor:
        """The mean number of valid boxes per image, a scalar that stays on the device."""
        return self.valid.sum() / max(len(self.valid), 1)

    @staticmethod
    def pad(
        boxes: Sequence[Tensor], classes: Sequence[Tensor], scores: Sequence[Tensor] | None = None
    ) -> BoxLabels:
        """One BoxLabels from ragged lists: boxes (n_i, 4), classes (n_i), scores (n_i) or all 1.

        K is the longest list, and at least 1, so that a reduction over slots always has an element.
        """
        slots = max([1, *(len(each) for each in boxes)])
        device = boxes[0].device
        padded = BoxLabels(
            boxes=torch.zeros(len(boxes), slots, 4, device=device),
            classes=torch.zeros(len(boxes), slots, dtype=torch.int64, device=device),
            scores=torch.zeros(len(boxes), slots, device=device),
            valid=torch.zeros(len(boxes), slots, dtype=torch.bool, device=device),
        )
        for image, (box, label) in enumerate(zip(boxes, classes, strict=True)):
            count = len(box)
            padded.boxes[image, :count] = box.float()
            padded.classes[image, :count] = label
            padded.scores[image, :count] = 1.0 if scores is None else scores[image].float()
            padded.valid[image, :count] = True
        return padded


def project_labels(
    labels: BoxLabels, homography: Tensor, size: Tensor, min_visible: float = 0.0
) -> BoxLabels:
    """Labels in another view's pixels; a box that left it, or of which too little is in view, is not valid.

    homography (B, 3, 3) maps the labels' px to that view's · size (B, 2) its height, width · min_visible:
    the share of a box's area that must be inside.
    """
    hull = project_boxes(labels.boxes, homography, None)
    boxes = clip_boxes(hull, size)
    return labels.with_boxes(boxes).where(visible_share(hull, boxes) >= min_visible)
