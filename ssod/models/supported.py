"""What a detector offers a method: the two stages that frcnn.py computes exactly, or mmdet's own losses."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from inspect import signature
from typing import Any

from mmengine.config import ConfigDict
from torch import nn

from ..core.selection import ClassAdaptive
from ..errors import UserError
from ..registry import METHODS

TWO_STAGE = "two_stage"  # named in `needs` by methods that propose, score or refine boxes with frcnn.py


def check_method(method: Any, detector: Any) -> None:
    """Raises UserError where a method, or a part of it, needs what the detector lacks."""
    fault = two_stage_fault(detector)
    for part in method.modules():
        name = f"method {type(method).__name__}" + ("" if part is method else f" with {type(part).__name__}")
        needs: frozenset[str] = getattr(part, "needs", frozenset())
        if not needs <= {TWO_STAGE}:
            unknown = ", ".join(sorted(needs - {TWO_STAGE}))
            raise UserError(f"{name} needs {unknown}, which is not known: use {TWO_STAGE!r}")
        if TWO_STAGE in needs and fault is not None:
            others = sorted(each for each, kind in METHODS.module_dict.items() if not kind.needs)
            raise UserError(
                f"{name} needs the two stages of Faster R-CNN, but {fault}; it works with FasterRCNN and "
                f"MaskRCNN as mmdet builds them, and this detector with {', '.join([*others, 'method=None'])}"
            )
        if isinstance(part, ClassAdaptive) and part.num_classes != (found := _num_classes(detector)):
            raise UserError(f"{name}: num_classes={part.num_classes}, the detector has {found}: write that")


def _num_classes(detector: Any) -> int:
    """The number of classes of the detector's last head."""
    head = detector.roi_head.bbox_head if hasattr(detector, "roi_head") else detector.bbox_head
    last: Any = head[-1] if isinstance(head, nn.ModuleList) else head
    return int(last.num_classes)


def check_detector(detector: Any) -> None:
    """Raises UserError for a detector that boxes alone can't train."""
    name = type(detector).__name__
    if detector.with_mask:
        raise UserError(f"detector {name} learns from masks, and views carry boxes only: use a box detector")
    if hasattr(detector, "roi_head") and not detector.with_rpn:
        raise UserError(f"detector {name} reads proposals from a file: use one with an rpn_head")
    if any(hasattr(part, "initial_epoch") for part in detector.modules()):
        raise UserError(
            f"detector {name} changes its assignment at an epoch (initial_epoch), and training here counts "
            "steps: use another detector"
        )


def without_masks(detector: ConfigDict) -> ConfigDict:
    """The detector's config without the mask branch of its roi_head: views carry boxes, nothing trains it."""
    roi_head = detector.get("roi_head") or {}
    optional = roi_head.get("type") in ("StandardRoIHead", "CascadeRoIHead")
    if not optional or not roi_head.get("mask_head"):
        return detector
    warnings.warn(
        f"detector {detector.type}: its mask_head is left out, for views carry boxes only; it finds boxes",
        stacklevel=2,
    )
    kept = {name: part for name, part in roi_head.items() if name not in ("mask_head", "mask_roi_extractor")}
    return ConfigDict({**detector, "roi_head": kept})


def two_stage_fault(detector: Any) -> str | None:
    """Why frcnn.py would compute something else than the mmdet detector itself; None where it is exact."""
    fault = next(_faults(detector), None)
    return None if fault is None else f"detector {type(detector).__name__} {fault}"


def _faults(detector: Any) -> Iterator[str]:
    """What frcnn.py does not know of the detector; whoever takes the first may stop there."""
    for part in ("rpn_head", "roi_head"):
        if getattr(detector, part, None) is None:
            yield f"has no {part}"
    if type(detector).loss.__qualname__ != "TwoStageDetector.loss":
        yield "has a loss function of its own"
    for part, known in ((detector.rpn_head, "RPNHead"), (detector.roi_head, "StandardRoIHead")):
        if type(part).__name__ != known:
            yield f"has {type(part).__name__} in the place of {known}"
    if detector.roi_head.with_mask:
        yield "has a mask_head"
    kind = type(detector.roi_head.bbox_head)
    if kind.loss.__qualname__ != "BBoxHead.loss" or detector.roi_head.bbox_head.custom_activation:
        yield f"has {kind.__name__} with a loss of its own"
    if not detector.rpn_head.use_sigmoid_cls:
        yield "has rpn_head.loss_cls without use_sigmoid=True"
    yield from _head_faults("rpn_head", detector.rpn_head)
    yield from _head_faults("roi_head.bbox_head", detector.roi_head.bbox_head)
    if getattr(detector.roi_head.bbox_head.loss_cls, "use_sigmoid", False):
        yield "has roi_head.bbox_head.loss_cls with use_sigmoid=True"
    yield from _training_faults("rpn", detector.rpn_head.assigner, detector.rpn_head.sampler)
    yield from _training_faults("rcnn", detector.roi_head.bbox_assigner, detector.roi_head.bbox_sampler)
    for stage in ("rpn", "rcnn"):
        weight = detector.train_cfg[stage].get("pos_weight", -1)
        if weight > 0:
            yield f"has train_cfg.{stage}.pos_weight={weight}, not -1"
    settings = {
        "train_cfg.rpn_proposal": detector.train_cfg.get("rpn_proposal", detector.test_cfg.rpn),
        "test_cfg.rpn": detector.test_cfg.rpn,
        "test_cfg.rcnn": detector.test_cfg.rcnn,
    }
    for where, config in settings.items():
        if config.nms.get("type", "nms") != "nms" or config.nms.get("class_agnostic", False):
            yield f"has {where}.nms={dict(config.nms)}, not type 'nms' without class_agnostic"
        unknown = sorted(config.nms.keys() - {"type", "iou_threshold", "class_agnostic", "split_thr"})
        if unknown:
            yield f"has {where}.nms with {', '.join(unknown)}"


def _head_faults(where: str, head: Any) -> Iterator[str]:
    """What frcnn.py does not know of a head's losses and box codes."""
    if not getattr(head.bbox_coder, "clip_border", True):  # coders without the option clip
        yield f"has {where}.bbox_coder with clip_border=False"
    for name in ("loss_cls", "loss_bbox"):
        if "label_weight" in signature(getattr(head, name).forward).parameters:
            yield f"has {where}.{name} of type {type(getattr(head, name)).__name__}, which counts for itself"


def _training_faults(stage: str, assigner: Any, sampler: Any) -> Iterator[str]:
    """What core/matching.py does not know of an assigner or a sampler."""
    head = "rpn_head" if stage == "rpn" else "roi_head"
    kinds = type(assigner).__name__, type(sampler).__name__
    if kinds != ("MaxIoUAssigner", "RandomSampler"):
        yield f"has a {head} trained with {kinds[0]} and {kinds[1]}, not MaxIoUAssigner and RandomSampler"
    wrong = {
        "assigner.neg_iou_thr": (assigner.neg_iou_thr, isinstance(assigner.neg_iou_thr, (int, float))),
        "assigner.perm_repeat_gt_cfg": (assigner.perm_repeat_gt_cfg, assigner.perm_repeat_gt_cfg is None),
        "assigner.gt_max_assign_all": (assigner.gt_max_assign_all, bool(assigner.gt_max_assign_all)),
        "assigner.ignore_iof_thr": (assigner.ignore_iof_thr, assigner.ignore_iof_thr < 0),
        "sampler.neg_pos_ub": (sampler.neg_pos_ub, sampler.neg_pos_ub < 0),
    }
    for key, (value, known) in wrong.items():
        if not known:
            yield f"has train_cfg.{stage}.{key}={value}, not the value of mmdet's Faster R-CNN"
