"""One free function per stage of an mmdet two-stage detector: the only file that knows its insides."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .. import kernels
from ..core import losses as core_losses
from ..core.geometry import clip_boxes, pairwise_iou
from ..core.labels import BoxLabels
from ..core.matching import UNUSED, MatchRule, SampleRule, assign, gather_boxes, sample
from .anchors import grid_anchors
from .box_codes import decode, encode
from .regions import distinct, region_features, rois_of
from .suppression import candidates, chosen, suppress, survivors
from .views import View

Features = tuple[Tensor, ...]
MOST_ROIS = 4096  # in one call without gradient: their features (256 x 7 x 7, float32) take 0.2 GB
Detector = Any  # an mmdet TwoStageDetector: mmdet has no types, and nn.Module would hide its parts


@dataclass(frozen=True)
class RPNOutput:
    """What the region proposal network says of B images, all levels in one row of N anchors.

    logits (B, N) · deltas (B, N, 4) · anchors (N, 4) xyxy px · cells (N, 2) y, x px of the anchor's cell ·
    levels: how many of the N belong to each pyramid level.
    """

    logits: Tensor
    deltas: Tensor
    anchors: Tensor
    cells: Tensor
    levels: tuple[int, ...]

    def rows(self, images: slice) -> RPNOutput:
        """The output of some of the images."""
        return replace(self, logits=self.logits[images], deltas=self.deltas[images])


@dataclass(frozen=True)
class RoITargets:
    """Sampled boxes of B images with what each should learn and how much it counts.

    boxes (B, S, 4) xyxy px · classes (B, S) with C for background · class_weights (B, S) ·
    deltas (B, S, 4) in the head's own coding · delta_weights (B, S) · used (B, S) ·
    class_normaliser, delta_normaliser: scalars that the weighted sums are divided by.
    """

    boxes: Tensor
    classes: Tensor
    class_weights: Tensor
    deltas: Tensor
    delta_weights: Tensor
    used: Tensor
    class_normaliser: Tensor
    delta_normaliser: Tensor

    @property
    def positive(self) -> Tensor:
        """Where (B, S) a box is matched to a label; only those have a regression target."""
        return self.delta_weights > 0

    @property
    def background_boxes(self) -> Tensor:
        """The boxes (B, S, 4) that are to be background; the others are empty."""
        return self.boxes.masked_fill((self.positive | ~self.used)[..., None], 0.0)

    def positives(self, num: int) -> RoITargets:
        """The first `num` slots of each image, where sampling puts the positives; normalisers stay.

        Boxes of the other slots are empty: no loss looks at what the head says of them.
        """
        cut = {
            name: getattr(self, name)[:, :num]
            for name in ("boxes", "classes", "class_weights", "deltas", "delta_weights", "used")
        }
        cut["boxes"] = cut["boxes"].masked_fill(~self.positive[:, :num, None], 0.0)
        return replace(self, **cut)


def features(detector: Detector, images: Tensor) -> Features:
    """The feature pyramid of images (B, 3, H, W); in float32 from a teacher that has a `network_dtype`."""
    with in_its_precision(detector, images.device):
        found = tuple(detector.extract_feat(images))
    return found if _network_dtype(detector) is None else tuple(each.float() for each in found)


def in_its_precision(detector: Detector, device: torch.device) -> AbstractContextManager[Any]:
    """A block in which a teacher that has a `network_dtype` computes its layers in it."""
    dtype = _network_dtype(detector)
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


def _network_dtype(detector: Detector) -> torch.dtype | None:
    return getattr(detector, "network_dtype", None)


def cut(detector: Detector, maps: Sequence[Tensor], extent: tuple[int, int] | None) -> Features:
    """Maps (B, A, h, w) of the pyramid's levels without what lies beyond `extent`: see View."""
    if extent is None:
        return tuple(maps)
    strides = detector.rpn_head.prior_generator.strides  # (x, y) px
    return tuple(
        each[..., : -(-extent[0] // down), : -(-extent[1] // right)]
        for each, (right, down) in zip(maps, strides, strict=True)
    )


# ---------------------------------------------------------------- region proposals


def rpn_forward(detector: Detector, pyramid: Features, extent: tuple[int, int] | None = None) -> RPNOutput:
    """The RPN run once over the pyramid, its levels flattened in mmdet's order (row, column, anchor).

    There are anchors within `extent` (height, width px; None: everywhere).
    """
    head = detector.rpn_head
    with in_its_precision(detector, pyramid[0].device):
        class_maps, box_maps = (cut(detector, maps, extent) for maps in head(pyramid))
    sizes = [(each.shape[2], each.shape[3]) for each in class_maps]
    anchors, cells = grid_anchors(head.prior_generator, sizes, class_maps[0].device)
    batch = len(class_maps[0])
    logits = [each.permute(0, 2, 3, 1).reshape(batch, -1) for each in class_maps]
    deltas = [each.permute(0, 2, 3, 1).reshape(batch, -1, 4) for each in box_maps]
    return RPNOutput(
        logits=torch.cat(logits, dim=1).float(),
        deltas=torch.cat(deltas, dim=1).float(),
        anchors=anchors,
        cells=cells,
        levels=tuple(each.shape[1] for each in logits),
    )


def rpn_losses(detector: Detector, rpn: RPNOutput, labels: BoxLabels, view: View) -> dict[str, Tensor]:
    """`loss_rpn_cls` and `loss_rpn_bbox` of the RPN against labels (their classes don't matter).

    Both are sums over the sampled anchors divided by how many were sampled, as in mmdet's RPNHead. Anchors of
    an image that is not `labels.taught` weigh 0, and count in that number.
    """
    head = detector.rpn_head
    eligible = (rpn.cells < view.padded[:, None]).all(dim=-1)  # (B, N)
    border = head.train_cfg.allowed_border
    if border >= 0:
        low, high = rpn.anchors[:, :2], rpn.anchors[:, 2:]
        limit = view.size.flip(-1)[:, None] + border
        eligible = eligible & (low >= -border).all(-1) & (high < limit).all(-1)
    matched = assign(rpn.anchors, eligible, labels, _match_rule(head.assigner))
    picked = sample(matched, _sample_rule(head.sampler))
    anchors = gather_boxes(rpn.anchors, picked.index)  # (B, S, 4)
    positive = picked.positive
    targets = _encode(head, anchors, gather_boxes(labels.boxes, picked.label.clamp(min=0)), positive)
    deltas = gather_boxes(rpn.deltas, picked.index)
    if head.reg_decoded_bbox:
        deltas = decode(head.bbox_coder, anchors, deltas)
    classes = torch.where(positive, 0, 1)  # mmdet counts foreground as 0, background as 1
    # mmdet counts an image without positives as if it had one, and likewise for background.
    background = picked.used & ~positive
    total = (positive.sum(dim=1).clamp(min=1) + background.sum(dim=1).clamp(min=1)).sum()
    logits = rpn.logits.gather(1, picked.index)
    values = head.loss_cls(logits.reshape(-1, 1), classes.reshape(-1), reduction_override="none")
    weights = _taught(picked.used, labels)
    return {
        "loss_rpn_cls": core_losses.weighted_sum(values.flatten(), weights.flatten(), total),
        "loss_rpn_bbox": _box_loss(head, deltas, targets, _taught(positive, labels), total),
    }


def proposals(detector: Detector, rpn: RPNOutput, view: View, config: Any) -> BoxLabels:
    """The best boxes of the RPN after NMS: BoxLabels of class 0, scored by objectness.

    config: mmdet's `rpn_proposal` or `test_cfg.rpn` (nms_pre, nms, max_per_img, min_bbox_size).
    """
    [found] = proposals_of_views(detector, rpn, [view], config)
    return found


@torch.no_grad()
def proposals_of_views(
    detector: Detector, rpn: RPNOutput, views: Sequence[View], config: Any
) -> list[BoxLabels]:
    """The `proposals` of each of several views, whose images follow each other in the RPN's output."""
    head = detector.rpn_head
    scores, indices, levels = [], [], []
    start = 0
    for level, count in enumerate(rpn.levels):
        here = rpn.logits[:, start : start + count]
        best = here.topk(min(config.nms_pre, count) if config.nms_pre > 0 else count, dim=1)
        scores.append(best.values)
        indices.append(best.indices + start if start else best.indices)
        levels.append(torch.full_like(best.indices, level))
        start += count
    index = torch.cat(indices, dim=1)
    sizes = [view.size for view in views]
    boxes = decode(head.bbox_coder, rpn.anchors[index], gather_boxes(rpn.deltas, index))
    boxes = clip_boxes(boxes, torch.cat(sizes) if len(sizes) > 1 else sizes[0])
    score = torch.cat(scores, dim=1).sigmoid()
    sides = boxes[..., 2:] - boxes[..., :2]
    wanted = (sides > config.get("min_bbox_size", -1)).all(dim=-1) & score.isfinite()
    group = torch.cat(levels, dim=1)
    kept = survivors(boxes, score, group, wanted, config.nms.iou_threshold, config.max_per_img)
    found, first = [], 0
    for size in sizes:
        rows = slice(first, first + len(size))
        found.append(chosen(boxes[rows], score[rows], torch.zeros_like(group[rows]), kept[rows]))
        first = rows.stop
    return found


def objectness(rpn: RPNOutput, boxes: Tensor, chunk: int = 32) -> Tensor:
    """The RPN's score (B, S) in [0, 1] of boxes (B, S, 4): that of the anchor which overlaps each most.

    Image by image and `chunk` boxes at a time: all overlaps of a COCO batch at once would take gigabytes.
    """
    with torch.no_grad():
        nearest = [
            torch.cat([pairwise_iou(part, rpn.anchors).argmax(dim=1) for part in each.split(chunk)])
            for each in boxes
        ]
    return rpn.logits.gather(1, torch.stack(nearest)).sigmoid()


# ---------------------------------------------------------------- regions of interest


def sample_rois(detector: Detector, candidates: BoxLabels, labels: BoxLabels) -> RoITargets:
    """The boxes an RoI head trains on: proposals matched to labels and sampled; the labels join in.

    Weights are 1 on every used slot, 0 in an image that is not `labels.taught`; both normalisers are the
    number of used slots (mmdet's BBoxHead).
    """
    head = detector.roi_head.bbox_head
    rule = _sample_rule(detector.roi_head.bbox_sampler)
    boxes = candidates.boxes
    matched = assign(boxes, candidates.valid, labels, _match_rule(detector.roi_head.bbox_assigner))
    if rule.add_labels:  # after the assignment, as in mmdet: each would be the best box of its own label
        slots = torch.arange(labels.valid.shape[1], device=boxes.device).expand_as(labels.valid)
        boxes = torch.cat([labels.boxes, boxes], dim=1)
        matched = torch.cat([torch.where(labels.valid, slots, UNUSED), matched], dim=1)
    picked = sample(matched, rule)
    positive = picked.positive
    label = picked.label.clamp(min=0)
    boxes = gather_boxes(boxes, picked.index).masked_fill(~picked.used[..., None], 0.0)
    classes = labels.classes.gather(1, label).masked_fill(~positive, head.num_classes)
    total = picked.used.sum().clamp(min=1)
    return RoITargets(
        boxes=boxes,
        classes=classes,
        class_weights=_taught(picked.used, labels),
        deltas=_encode(head, boxes, gather_boxes(labels.boxes, label), positive),
        delta_weights=_taught(positive, labels),
        used=picked.used,
        class_normaliser=total,
        delta_normaliser=total,
    )


def max_positives(detector: Detector) -> int:
    """How many positive boxes an image can have in `sample_rois`."""
    rule = _sample_rule(detector.roi_head.bbox_sampler)
    return int(rule.num * rule.pos_fraction)


def roi_forward(
    detector: Detector, pyramid: Features, groups: Sequence[tuple[int, Tensor]]
) -> list[tuple[Tensor, Tensor]]:
    """Class logits (B, S, C + 1) and box codes (B, S, 4 C or 4) of several box groups in one head call.

    groups: (row of the group's first image in the pyramid, boxes (B, S, 4)). Without gradient it takes
    MOST_ROIS boxes at a time, so that memory is bounded. Where no host waits, a box that comes several times
    goes through the head once (and counts once in the statistics of a BatchNorm that trains there).
    """
    rois, place = distinct(torch.cat([rois_of(boxes, first) for first, boxes in groups]))
    levels = [each.float() for each in pyramid[: detector.roi_head.bbox_roi_extractor.num_inputs]]
    if kernels.active() != "torchvision":  # mmcv's own RoIAlign reads memory as if it were in one piece
        levels = [each.contiguous() for each in levels]
    most = len(rois) if torch.is_grad_enabled() else MOST_ROIS
    parts = [_head_outputs(detector, levels, part) for part in torch.split(rois, max(1, most))]
    logits, codes = (torch.cat(each) if len(parts) > 1 else each[0] for each in zip(*parts, strict=True))
    if place is not None:
        logits, codes = logits.index_select(0, place), codes.index_select(0, place)
    shapes = [boxes.shape[:2] for _, boxes in groups]
    counts = [batch * slots for batch, slots in shapes]
    outputs = zip(shapes, torch.split(logits, counts), torch.split(codes, counts), strict=True)
    return [(logit.float().view(*shape, -1), code.float().view(*shape, -1)) for shape, logit, code in outputs]


def _head_outputs(detector: Detector, levels: list[Tensor], rois: Tensor) -> tuple[Tensor, Tensor]:
    """Class logits and box codes of rois (R, 5) on float32 levels.

    RoIAlign runs with autocast off: mmdet's extractor would cast the boxes to half precision.
    """
    roi_head = detector.roi_head
    with torch.autocast(rois.device.type, enabled=False):
        regions = region_features(roi_head.bbox_roi_extractor, levels, rois)
    with in_its_precision(detector, rois.device):
        if roi_head.with_shared_head:
            regions = roi_head.shared_head(regions)
        logits, codes = roi_head.bbox_head(regions)
    return logits, codes


def roi_losses(detector: Detector, logits: Tensor, codes: Tensor, targets: RoITargets) -> dict[str, Tensor]:
    """`loss_cls`, `loss_bbox` and the accuracy `acc` (per cent of used boxes) of one box group."""
    head = detector.roi_head.bbox_head
    values = head.loss_cls(logits.flatten(0, 1), targets.classes.flatten(), reduction_override="none")
    right = (logits.argmax(dim=-1) == targets.classes) & targets.used
    codes = _class_codes(head, codes, targets.classes)
    if head.reg_decoded_bbox:
        codes = decode(head.bbox_coder, targets.boxes, codes)
    return {
        "loss_cls": core_losses.weighted_sum(
            values.flatten(), targets.class_weights.flatten(), targets.class_normaliser
        ),
        "loss_bbox": _box_loss(head, codes, targets.deltas, targets.delta_weights, targets.delta_normaliser),
        "acc": right.sum() * 100.0 / targets.used.sum().clamp(min=1),
    }


def class_probabilities(detector: Detector, pyramid: Features, boxes: Tensor) -> Tensor:
    """Softmax scores (B, S, C + 1), background last, of boxes (B, S, 4) on their own features."""
    [(logits, _)] = roi_forward(detector, pyramid, [(0, boxes)])
    return logits.softmax(dim=-1)


def refine_boxes(
    detector: Detector, pyramid: Features, boxes: Tensor, classes: Tensor, size: Tensor
) -> Tensor:
    """Boxes (B, S, 4) after the head's regression for the given classes (B, S), clipped to size (B, 2).

    Some slots at a time, as many as MOST_ROIS allows: codes for all classes are not kept.
    """
    refined = []
    slots = max(1, MOST_ROIS // len(boxes))
    for box, label in zip(torch.split(boxes, slots, 1), torch.split(classes, slots, 1), strict=True):
        [(_, codes)] = roi_forward(detector, pyramid, [(0, box)])
        refined.append(apply_codes(detector, box, codes, label, size))
    return torch.cat(refined, dim=1)


def apply_codes(
    detector: Detector, boxes: Tensor, codes: Tensor, classes: Tensor, size: Tensor | None
) -> Tensor:
    """Boxes (B, S, 4) moved by `roi_forward`'s codes for classes (B, S), clipped to size (B, 2) if any."""
    head = detector.roi_head.bbox_head
    with torch.autocast(boxes.device.type, enabled=False):
        codes = _class_codes(head, codes.float(), classes)
        moved = decode(head.bbox_coder, boxes, codes)
        return moved if size is None else clip_boxes(moved, size)


@torch.no_grad()
def detect(detector: Detector, view: View, floor: float) -> tuple[BoxLabels, Features]:
    """Detections of a view with score above `floor`, and the pyramid they were found on.

    The detector's own test settings, except that `floor` takes the place of `score_thr`: inside NMS rather
    than after it, which gives the same boxes (a lower score never suppresses a higher one) for less work.
    """
    head = detector.roi_head.bbox_head
    config = detector.test_cfg.rcnn
    pyramid = features(detector, view.images)
    found = proposals(detector, rpn_forward(detector, pyramid, view.extent), view, detector.test_cfg.rpn)
    pyramid = cut(detector, pyramid, view.extent)
    [(logits, codes)] = roi_forward(detector, pyramid, [(0, found.boxes)])
    scores = logits.softmax(dim=-1)[..., :-1]  # (B, N, C)
    place, wanted = candidates(scores, found.valid, floor)  # (B, M): only these are decoded
    row, classes = place // scores.shape[2], place % scores.shape[2]
    boxes = gather_boxes(found.boxes, row)
    codes = gather_boxes(codes.view(len(codes), -1, 4), row if head.reg_class_agnostic else place)
    labels = suppress(
        clip_boxes(decode(head.bbox_coder, boxes, codes), view.size),
        scores.flatten(1).gather(1, place),
        classes,
        classes,
        wanted,
        config.nms.iou_threshold,
        config.max_per_img,
    )
    return labels, pyramid


# ---------------------------------------------------------------- pieces


def _match_rule(assigner: Any) -> MatchRule:
    return MatchRule(
        pos_iou=assigner.pos_iou_thr,
        neg_iou=assigner.neg_iou_thr,
        min_pos_iou=assigner.min_pos_iou,
        match_low_quality=assigner.match_low_quality,
    )


def _sample_rule(sampler: Any) -> SampleRule:
    return SampleRule(sampler.num, sampler.pos_fraction, sampler.add_gt_as_proposals)


def _taught(picked: Tensor, labels: BoxLabels) -> Tensor:
    """Weights (B, S): 1 where a slot is picked (B, S), in the images that the labels teach."""
    return (picked if labels.taught is None else picked & labels.taught[:, None]).float()


def _encode(head: Any, boxes: Tensor, targets: Tensor, positive: Tensor) -> Tensor:
    """What the head should regress (B, S, 4): codes, or boxes where it learns those; 0 off the positives."""
    if head.reg_decoded_bbox:
        return targets
    # Padding has no sides, and their logarithm would be infinite: there it is the box (0, 0, 1, 1).
    unit = (torch.arange(4, device=boxes.device) > 1).to(boxes.dtype)
    safe = torch.where(positive[..., None], boxes, unit)
    wanted = torch.where(positive[..., None], targets, unit)
    return encode(head.bbox_coder, safe, wanted)


def _class_codes(head: Any, codes: Tensor, classes: Tensor) -> Tensor:
    """The four codes (B, S, 4) that belong to each box's class; any class will do for background."""
    if head.reg_class_agnostic:
        return codes
    codes = codes.view(*classes.shape, -1, 4)
    index = classes.clamp(max=codes.shape[2] - 1)[..., None, None].expand(-1, -1, 1, 4)
    return codes.gather(2, index).squeeze(2)


def _box_loss(head: Any, prediction: Tensor, target: Tensor, weights: Tensor, normaliser: Tensor) -> Tensor:
    """The head's own box loss, weighted per box (B, S); L1-like losses are summed over coordinates."""
    if head.reg_decoded_bbox:
        # At boxes without sides the gradient of some (SIoU) is no number, and 0 times it isn't either.
        unit = (torch.arange(4, device=target.device) > 1).to(target.dtype)
        counts = weights[..., None] != 0
        prediction, target = torch.where(counts, prediction, unit), torch.where(counts, target, unit)
    values = head.loss_bbox(prediction.flatten(0, 1), target.flatten(0, 1), reduction_override="none")
    if values.dim() == 2:
        values = values.sum(dim=-1)
    return core_losses.weighted_sum(values, weights.flatten(), normaliser)
