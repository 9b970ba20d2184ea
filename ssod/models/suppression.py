"""Which boxes survive NMS, of padded candidates: in fixed shapes where the host would wait for a device."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence
from torchvision.ops import nms

from ..core.labels import BoxLabels

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
    """BoxLabels that survive NMS within each image and group, the best `max_per_image` of each image.

    boxes (B, M, 4), clipped to their image, the rest (B, M); wanted scores are finite. Slots are trimmed to
    the fullest image: the host has just waited for NMS, and empty slots would cost RoI work. Image by image,
    since float32 can't hold the offsets that keep the groups of a whole batch apart: boxes would be rounded
    to 4 px. `fixed`: see `candidates`; both ways give the same boxes.
    """
    if fixed is None:
        fixed = host_waits(boxes.device) and boxes.shape[1] <= MOST_FIXED
    fixed = fixed and iou_threshold < 1  # without any suppression, padding would stay, too
    survivors = _survivors_of_all if fixed else _survivors_of_wanted
    kept = []
    for box, score, label, group, want in zip(
        boxes.float(), scores.float(), classes, groups, wanted, strict=True
    ):
        keep = survivors(box, score, group, want, iou_threshold)[:max_per_image]
        kept.append((box[keep], label[keep], score[keep]))
    return BoxLabels.pad(*(list(each) for each in zip(*kept, strict=True)))


def _survivors_of_wanted(
    box: Tensor, score: Tensor, group: Tensor, wanted: Tensor, threshold: float
) -> Tensor:
    """Indices of the wanted boxes of an image that no better one of their group suppresses, best first."""
    place = wanted.nonzero().squeeze(1)  # sync: NMS gets the wanted boxes only, which is less work
    box = box[place]
    reach = box.amax() + 1 if len(box) else 1.0
    return place[nms(box + (group[place] * reach)[:, None], score[place], threshold)]


def _survivors_of_all(box: Tensor, score: Tensor, group: Tensor, wanted: Tensor, threshold: float) -> Tensor:
    """The same without asking how many are wanted: the others are one box apart from all, with lowest score.

    That box is added once more, so that exactly one of its copies survives, and comes last.
    """
    reach = box.masked_fill(~wanted[:, None], 0.0).amax() + 1
    apart = box + (group * reach)[:, None]
    far = torch.arange(-4.0, 0.0, device=box.device)  # boxes of an image have no coordinate below 0
    apart = torch.where(wanted[:, None], apart, far)
    apart = torch.cat([apart, far[None]])
    score = pad(score.masked_fill(~wanted, -torch.inf), (0, 1), value=-torch.inf)
    keep: Tensor = nms(apart, score, threshold)
    return keep[:-1]
