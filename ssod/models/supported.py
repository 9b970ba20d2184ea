"""Which detectors the stage functions of frcnn.py compute exactly; every other one is refused by name."""

from __future__ import annotations

from typing import Any

from ..errors import UserError


def check_detector(detector: Any) -> None:
    """Raises UserError where frcnn.py would compute something else than the mmdet detector itself."""
    name = type(detector).__name__
    for part in ("rpn_head", "roi_head"):
        if getattr(detector, part, None) is None:
            raise UserError(
                f"detector {name} has no {part}: this method needs a two-stage detector such as FasterRCNN"
            )
    roi_head = type(detector.roi_head).__name__
    if roi_head != "StandardRoIHead":
        raise UserError(f"detector {name} has a {roi_head}; only StandardRoIHead works here")
    if detector.roi_head.with_mask:
        raise UserError(f"detector {name} has a mask_head, which nothing here trains: leave it out")
    if not detector.rpn_head.use_sigmoid_cls:
        raise UserError(f"detector {name}: rpn_head.loss_cls must have use_sigmoid=True")
    _check_training(name, "rpn", detector.rpn_head.assigner, detector.rpn_head.sampler)
    _check_training(name, "rcnn", detector.roi_head.bbox_assigner, detector.roi_head.bbox_sampler)
    for stage in ("rpn", "rcnn"):
        weight = detector.train_cfg[stage].get("pos_weight", -1)
        if weight > 0:
            raise UserError(f"detector {name}: train_cfg.{stage}.pos_weight={weight}, use -1")
    settings = {
        "train_cfg.rpn_proposal": detector.train_cfg.get("rpn_proposal", detector.test_cfg.rpn),
        "test_cfg.rpn": detector.test_cfg.rpn,
        "test_cfg.rcnn": detector.test_cfg.rcnn,
    }
    for where, config in settings.items():
        kind = config.nms.get("type", "nms")
        if kind != "nms" or config.nms.get("class_agnostic", False):
            raise UserError(
                f"detector {name}: {where}.nms is {dict(config.nms)}; use type 'nms', not class_agnostic"
            )


def _check_training(name: str, stage: str, assigner: Any, sampler: Any) -> None:
    """Raises UserError for an assigner or sampler that core/matching.py does not know."""
    head = "rpn_head" if stage == "rpn" else "roi_head"
    kinds = type(assigner).__name__, type(sampler).__name__
    if kinds != ("MaxIoUAssigner", "RandomSampler"):
        raise UserError(
            f"detector {name}: {head} is trained with {kinds[0]} and {kinds[1]}; "
            "use MaxIoUAssigner and RandomSampler"
        )
    wrong = {
        "assigner.neg_iou_thr": (assigner.neg_iou_thr, isinstance(assigner.neg_iou_thr, (int, float))),
        "assigner.gt_max_assign_all": (assigner.gt_max_assign_all, bool(assigner.gt_max_assign_all)),
        "assigner.ignore_iof_thr": (assigner.ignore_iof_thr, assigner.ignore_iof_thr < 0),
        "sampler.neg_pos_ub": (sampler.neg_pos_ub, sampler.neg_pos_ub < 0),
    }
    for key, (value, known) in wrong.items():
        if not known:
            raise UserError(
                f"detector {name}: train_cfg.{stage}.{key}={value} is not known here; "
                "take the value of mmdet's Faster R-CNN"
            )
