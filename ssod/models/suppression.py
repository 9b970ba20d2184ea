"""Which boxes survive NMS, of padded candidates: in fixed shapes where the host would wait for a device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence
from torchvision.ops import nms

from ..core.labels import BoxLabels
from ..core.matching import gather_boxes

# NMS on a device keeps a bit for each pair of boxes: 128 MiB for so many. Beyond it, wait, take the wanted.
MOST_FIXED = 2**15


def host_waits(device: torch.device) -> bool:
    """Whether the host must wait to learn how many boxes there are on this device; on a CPU it never does."""
    return device.type != "cpu"


def most_above(floor: float, num_classes: int) -> int:
    """How many of a box's softmax scores can exceed `floor`: they sum to 1, a little more after rounding."""
    return num_classes if floor <= 0 else min(num_classes, max(1, int(1.0001 / floor)))


def candidates(
    scores: Tensor, valid: Tensor, floor: float, fixed: bool | None = None
) -> tuple[Tensor, Tensor]:
    """The classes of boxes that score above `floor`: their place (B, M) in N * C, and which of them count.

    scores (B, N, C): softmax scores, without the background's · valid (B, N). Places of an image that count
    (bool (B, M)) rise, and hold all there are. `fixed`: M depends on shapes and `floor` alone (None: where
    the host would have to wait to know more, and M is small enough for NMS), else it is what the fullest
    image has, at least 1.
    """
    _, num_boxes, num_classes = scores.shape
    wanted = (scores > floor) & valid[..., None]
    width = most_above(floor, num_classes)
    if fixed is None:
        fixed = host_waits(scores.device) and num_boxes * width <= MOST_FIXED
    if not fixed:
        # sync: the places are as many as they are.
        found = [each.nonzero().squeeze(1) for each in wanted.flatten(1)]
        counted = pad_sequence([torch.ones_like(each) for each in found], batch_first=True)
        place = pad_sequence(found, batch_first=True)
        empty = max(0, 1 - place.shape[1])
        return pad(place, (0, empty)), pad(counted, (0, empty)) > 0
    best = scores.masked_fill(~wanted, -1.0).topk(width, dim=-1, sorted=False).indices
    best = best.sort(dim=-1).values  # by class: of equal scores NMS takes the first
    place = torch.arange(num_boxes, device=best.device)[:, None] * num_classes + best
    return place.flatten(1), wanted.gather(2, best).flatten(1)


def suppress(
    boxes: Tensor,
    scores: Tensor,
    classes: Tensor,
    groups: Tensor,
    wanted: Tensor,
    iou_threshold: float,
    max_per_image: int,
    fixed: bool | None = None,
) -> BoxLabels:
    """BoxLabels that survive NMS within each image and group, the best `max_per_image` of each (-1: all).

    boxes (B, M, 4), clipped to their image, the rest (B, M); wanted scores are finite. Slots are trimmed to
    the fullest image: the host has just waited for NMS, and empty slots would cost RoI work. NMS itself runs
    image by image, since float32 can't hold the offsets that keep the groups of a whole batch apart: boxes
    would be rounded to 4 px. `fixed`: see `candidates`; both ways give the same boxes.
    """
    kept = survivors(boxes, scores, groups, wanted, iou_threshold, max_per_image, fixed)
    return chosen(boxes, scores, classes, kept)


def survivors(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor,
    wanted: Tensor,
    iou_threshold: float,
    max_per_image: int,
    fixed: bool | None = None,
) -> list[Tensor]:
    """Of each image, the places of the boxes that `suppress` keeps, best first."""
    most = boxes.shape[1] if max_per_image < 0 else max_per_image
    if fixed is None:
        fixed = host_waits(boxes.device) and boxes.shape[1] <= MOST_FIXED
    if fixed and iou_threshold < 1:  # without any suppression, padding would stay, too
        return _survivors_of_all(boxes.float(), scores.float(), groups, wanted, iou_threshold, most)
    every = zip(boxes.float(), scores.float(), groups, wanted, strict=True)
    return [_survivors_of_wanted(*each, iou_threshold)[:most] for each in every]


def chosen(boxes: Tensor, scores: Tensor, classes: Tensor, places: Sequence[Tensor]) -> BoxLabels:
    """BoxLabels of boxes (B, M, 4) with scores and classes (B, M), of each image those at some places."""
    place = pad_sequence(list(places), batch_first=True, padding_value=-1)
    place = pad(place, (0, max(0, 1 - place.shape[1])), value=-1)
    empty, place = place < 0, place.clamp(min=0)
    return BoxLabels(
        boxes=gather_boxes(boxes.float(), place).masked_fill(empty[..., None], 0.0),
        classes=classes.gather(1, place).masked_fill(empty, 0),
        scores=scores.float().gather(1, place).masked_fill(empty, 0.0),
        valid=~empty,
    )


def _survivors_of_wanted(
    box: Tensor, score: Tensor, group: Tensor, wanted: Tensor, threshold: float
) -> Tensor:
    """Indices of the wanted boxes of an image that no better one of their group suppresses, best first."""
    place = wanted.nonzero().squeeze(1)  # sync: NMS gets the wanted boxes only, which is less work
    box = box[place]
    reach = box.amax() + 1 if len(box) else 1.0
    return place[nms(box + (group[place] * reach)[:, None], score[place], threshold)]


def _survivors_of_all(
    boxes: Tensor, scores: Tensor, groups: Tensor, wanted: Tensor, threshold: float, most: int
) -> list[Tensor]:
    """The same of each image, at most so many, without asking how many boxes are wanted.

    The others are one box apart from all, with the lowest score. That box is added once more, so that exactly
    one of its copies survives, and comes last.
    """
    some = wanted[..., None]
    reach = boxes.masked_fill(~some, 0.0).amax(dim=(1, 2)) + 1
    apart = boxes + (groups * reach[:, None])[..., None]
    far = torch.arange(-4.0, 0.0, device=boxes.device)  # boxes of an image have no coordinate below 0
    apart = torch.cat([torch.where(some, apart, far), far.expand(len(boxes), 1, 4)], dim=1)
    scores = pad(scores.masked_fill(~wanted, -torch.inf), (0, 1), value=-torch.inf)
    kept = [nms(*each, threshold) for each in zip(apart, scores, strict=True)]
    return [each[: min(len(each) - 1, most)] for each in kept]
