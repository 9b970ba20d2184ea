"""Which prior learns which label: assignment and sampling in fixed shapes, no value ever leaves the device.

The rules are those of mmdet's MaxIoUAssigner and RandomSampler (Faster R-CNN, arXiv 1506.01497), which walk
image by image and box by box and make the host wait for the device each time.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from .geometry import pairwise_iou
from .labels import BoxLabels

BACKGROUND = -1
UNUSED = -2
# Pairs of a label and a prior at a time: their overlaps, with what it takes to find them, are 0.2 GB.
MOST_PAIRS = 2**23


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
    Takes as many images at a time as have MOST_PAIRS overlaps, of one that has more some labels at a time.
    """
    images, slots = labels.valid.shape
    some = max(1, MOST_PAIRS // max(1, slots * valid.shape[1]))
    if some >= images:
        return _assign_some(priors, valid, labels.boxes, labels.valid, labels.ignored, rule)
    parts = [slice(first, first + some) for first in range(0, images, some)]
    matched = [
        _assign_some(
            priors if priors.dim() == 2 else priors[part],
            valid[part],
            labels.boxes[part],
            labels.valid[part],
            None if labels.ignored is None else labels.ignored[part],
            rule,
        )
        for part in parts
    ]
    return torch.cat(matched)


def _assign_some(
    priors: Tensor, eligible: Tensor, boxes: Tensor, valid: Tensor, ignored: Tensor | None, rule: MatchRule
) -> Tensor:
    """`assign` of some images: eligible (B, N), boxes (B, K, 4), valid and ignored (B, K) -> (B, N)."""
    slots = boxes.shape[1]
    rows = max(1, MOST_PAIRS // max(1, eligible.numel()))
    if rows >= slots:
        found = _nearest(priors, valid[..., None] & eligible[:, None], boxes, ignored, rule, 0)
    else:
        parts = [slice(first, first + rows) for first in range(0, slots, rows)]
        found = reduce(
            _Nearest.joined,
            (
                _nearest(
                    priors,
                    valid[:, part, None] & eligible[:, None],
                    boxes[:, part],
                    None if ignored is None else ignored[:, part],
                    rule,
                    part.start,
                )
                for part in parts
            ),
        )
    # Background also where there is no label at all: there the overlap is -1.
    negative = (found.iou < rule.neg_iou) & (found.iou < rule.pos_iou)
    matched = torch.where(found.iou >= rule.pos_iou, found.label, UNUSED)
    matched = matched.masked_fill(negative, BACKGROUND)
    if found.rescuer is not None:
        matched = torch.where(found.rescuer >= 0, found.rescuer, matched)
    if found.ignored_iou is not None:
        near = (found.ignored_iou >= rule.neg_iou) & (matched == BACKGROUND)
        matched = matched.masked_fill(near, UNUSED)
    return matched.masked_fill(~eligible, UNUSED)


@dataclass(frozen=True)
class _Nearest:
    """What some labels are to priors (B, N): of the label of largest overlap, its `iou` (-1: none) and slot.

    rescuer: slot of the last label whose best prior this is, -1 where none · ignored_iou: the largest with an
    ignored box. Both are None where the rule or the labels have no need of them.
    """

    iou: Tensor
    label: Tensor
    rescuer: Tensor | None
    ignored_iou: Tensor | None

    def joined(self, later: _Nearest) -> _Nearest:
        """What these labels and later ones are together; of equal overlaps the first counts."""
        return _Nearest(
            torch.maximum(self.iou, later.iou),
            torch.where(later.iou > self.iou, later.label, self.label),
            _maximum(self.rescuer, later.rescuer),
            _maximum(self.ignored_iou, later.ignored_iou),
        )


def _maximum(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    return None if first is None or second is None else torch.maximum(first, second)


def _nearest(
    priors: Tensor, valid: Tensor, boxes: Tensor, ignored: Tensor | None, rule: MatchRule, first: int
) -> _Nearest:
    """Of priors (N, 4) or (B, N, 4), the nearest of boxes (B, K, 4) in the slots from `first` on.

    valid: pairs (B, K, N) that count · ignored (B, K) or None.
    """
    overlaps = pairwise_iou(boxes, priors)  # (B, K, N)
    ignored_iou = None if ignored is None else overlaps.masked_fill(~ignored[..., None], -1.0).amax(dim=1)
    iou = overlaps.masked_fill_(~valid, -1.0)
    best, label = iou.max(dim=1)
    label = label + first if first else label
    if not rule.match_low_quality:
        return _Nearest(best, label, None, ignored_iou)
    label_best = iou.amax(dim=2, keepdim=True)  # (B, K, 1)
    rescued = (iou == label_best) & ((label_best >= rule.min_pos_iou) & (label_best > 0))
    last = first + boxes.shape[1]
    slots = torch.arange(first, last, device=boxes.device, dtype=torch.int32)[:, None]
    # A prior that is the best of two labels goes to the later one, as in mmdet's loop.
    return _Nearest(best, label, torch.where(rescued, slots, -1).amax(dim=1), ignored_iou)


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
