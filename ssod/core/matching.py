"""Which prior learns which label: assignment and sampling in fixed shapes, no value ever leaves the device.

The rules are those of mmdet's MaxIoUAssigner and RandomSampler (Faster R-CNN, arXiv 1506.01497), which walk
image by image and box by box and make the host wait for the device each time.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .geometry import pairwise_iou
from .labels import BoxLabels

BACKGROUND = -1
UNUSED = -2


@dataclass(frozen=True)
class MatchRule:
    """Overlap bounds of an assignment.

    A prior is positive at IoU >= `pos_iou`, background at IoU < `neg_iou`, unused between; with
    `match_low_quality` the best priors of every label are positive too if they reach `min_pos_iou`.
    """

    pos_iou: float
    neg_iou: float
    min_pos_iou: float = 0.0
    match_low_quality: bool = True


@dataclass(frozen=True)
class SampleRule:
    """How many priors of an image are trained on, and at most which share of them positive."""

    num: int
    pos_fraction: float
    add_labels: bool = False


@dataclass(frozen=True)
class Sample:
    """S chosen priors of each of B images. Slots that are not `used` are padding.

    index (B, S) into the priors · label (B, S) the matched label's slot, BACKGROUND where none · used (B, S).
    """

    index: Tensor
    label: Tensor
    used: Tensor

    @property
    def positive(self) -> Tensor:
        """Where (B, S) a used slot is matched to a label."""
        return self.used & (self.label >= 0)


def assign(priors: Tensor, valid: Tensor, labels: BoxLabels, rule: MatchRule) -> Tensor:
    """The label slot of every prior (B, N) int64: >= 0 a match, BACKGROUND, or UNUSED.

    priors (N, 4) shared by all images or (B, N, 4) · valid (B, N) bool, False for padding.
    A label that touches no prior gets none, even with `min_pos_iou` 0 (mmdet: all that it doesn't touch).
    Background that overlaps an ignored box by IoU >= `neg_iou` is unused: it would not be background either
    if the box were a label. A match stays one. (mmdet's `ignored_instances` with `ignore_iof_thr` take the
    intersection over the prior's area instead, and take matched priors out, too.)
    Works image by image: the (K, N) overlaps of one image at a time keep a COCO batch under 0.2 GB.
    """
    per_image = [
        _assign_one(
            priors if priors.dim() == 2 else priors[image],
            labels.boxes[image],
            labels.valid[image, :, None] & valid[image],
            None if labels.ignored is None else labels.ignored[image],
            rule,
        )
        for image in range(len(labels.boxes))
    ]
    return torch.stack(per_image).masked_fill(~valid, UNUSED)


def _assign_one(
    priors: Tensor, boxes: Tensor, valid: Tensor, ignored: Tensor | None, rule: MatchRule
) -> Tensor:
    """`assign` for one image: priors (N, 4), boxes (K, 4), valid pairs (K, N), ignored (K) -> (N)."""
    overlaps = pairwise_iou(boxes, priors)  # (K, N)
    iou = overlaps.masked_fill(~valid, -1.0)
    best, matched = iou.max(dim=0)
    negative = best < rule.neg_iou  # also where there is no label at all: best is -1
    matched = torch.where(best >= rule.pos_iou, matched, UNUSED)
    matched = torch.where(negative & (best < rule.pos_iou), BACKGROUND, matched)
    if rule.match_low_quality:
        label_best = iou.amax(dim=1, keepdim=True)  # (K, 1)
        rescued = (iou == label_best) & (label_best >= rule.min_pos_iou) & (label_best > 0)
        slots = torch.arange(len(boxes), device=boxes.device)[:, None]
        # A prior that is the best of two labels goes to the later one, as in mmdet's loop.
        last = torch.where(rescued, slots, -1).amax(dim=0)
        matched = torch.where(last >= 0, last, matched)
    if ignored is not None:
        near = overlaps.masked_fill(~ignored[:, None], -1.0).amax(dim=0) >= rule.neg_iou
        matched = torch.where(near & (matched == BACKGROUND), UNUSED, matched)
    return matched


def sample(matched: Tensor, rule: SampleRule) -> Sample:
    """A random choice of at most `rule.num` priors per image from an assignment (B, N).

    Positives first, at most `pos_fraction` of `num`; background fills what is left. S is `num`, or fewer
    where there are fewer priors. Random keys and two top-k: no host wait, every image the same shape.
    """
    num_priors = matched.shape[1]
    num_pos = min(int(rule.num * rule.pos_fraction), num_priors)
    num_all = min(rule.num, num_priors)
    keys = torch.rand(matched.shape, device=matched.device)
    pos_key, pos_index = keys.masked_fill(matched < 0, -1.0).topk(num_pos, dim=1)
    neg_key, neg_index = keys.masked_fill(matched != BACKGROUND, -1.0).topk(num_all, dim=1)
    pos_used = pos_key >= 0
    room = rule.num - pos_used.sum(dim=1, keepdim=True)
    neg_used = (neg_key >= 0) & (torch.arange(num_all, device=matched.device) < room)
    index = torch.cat([pos_index, neg_index], dim=1)
    used = torch.cat([pos_used, neg_used], dim=1)
    order = used.int().sort(dim=1, descending=True, stable=True).indices[:, :num_all]
    index, used = index.gather(1, order), used.gather(1, order)
    return Sample(index=index, label=matched.gather(1, index), used=used)


def gather_boxes(boxes: Tensor, index: Tensor) -> Tensor:
    """Boxes (B, S, 4) at `index` (B, S) of boxes (B, N, 4), or of boxes (N, 4) shared by the batch."""
    if boxes.dim() == 2:
        return boxes[index]
    return boxes.gather(1, index[..., None].expand(-1, -1, 4))
