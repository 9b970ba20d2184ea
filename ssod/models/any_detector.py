"""Any mmdet detector through its own code: `detector.loss` and `detector.predict` on our views and labels.

For what frcnn.py does not compute. mmdet's assigners, samplers and NMS wait for the device image by image;
the few waits in this file, which unpack our padded values for them, add nothing to that.
"""

from __future__ import annotations

from typing import Any

import torch
from mmengine.structures import InstanceData
from torch import Tensor

from ..core.labels import BoxLabels
from ..errors import UserError
from .views import View

Detector = Any  # any mmdet detector: mmdet has no types

_BOX_TERMS = (
    *("bbox", "centerness", "iou", "dfl", "reg", "wh", "xy", "off", "pts", "shape"),
    *("_l1", "carl", "_ld", "anchor_loc", "shift"),
)


def losses(detector: Detector, view: View, labels: BoxLabels) -> dict[str, Tensor]:
    """mmdet's own losses of a view against labels, one scalar per key: levels are summed as mmengine does.

    Images that are not `labels.taught` are left out of the batch; a loss over sampled boxes is lowered to
    the share of the others, as if boxes of all had been sampled: so frcnn.py counts. Where no image is left
    every loss is 0, with the keys and the gradients (0) of an ordinary step.
    With trainable BatchNorm each call has its own batch statistics; StudentPass shares them between views.
    """
    view = view.within_extent()
    images, samples, share = view.images, _samples(view, labels), 1.0
    if labels.taught is not None:
        rows = labels.taught.nonzero().squeeze(1).tolist()  # sync: mmdet takes a list of images, not a mask
        # Heads average counts over all processes: one that left out its turn would stop the others.
        share = len(rows) / len(samples)
        if rows:
            images, samples = images[rows], [samples[row] for row in rows]
    found = detector.loss(images, samples)
    left = 1.0 if share > 0 else 0.0
    return {k: _scalar(v) * (share if _counts_samples(detector, k) else left) for k, v in found.items()}


def _counts_samples(detector: Detector, key: str) -> bool:
    """Whether a loss is divided by all boxes that were sampled (two stages), not by the positives."""
    head = getattr(detector, "rpn_head" if "rpn" in key else "roi_head", None)
    found = getattr(head, "bbox_sampler", None) or getattr(head, "sampler", None)
    samplers = found if isinstance(found, list) else [found]  # Cascade R-CNN has one for each stage
    return "loss" in key and any(hasattr(each, "num") for each in samplers)  # mmdet's PseudoSampler takes all


def _scalar(value: Tensor | list[Tensor]) -> Tensor:
    """What mmengine's parse_losses adds up for one key."""
    levels = value if isinstance(value, list) else [value]
    return torch.stack([each.mean() for each in levels]).sum()


def is_box_term(key: str) -> bool:
    """Whether a loss teaches where a box is rather than what it is, by the words in mmdet's keys.

    FCOS's centerness counts: its target is where in its box a point lies.
    """
    return any(word in key for word in _BOX_TERMS)


@torch.no_grad()
def detect(detector: Detector, view: View, floor: float) -> BoxLabels:
    """The predictions with score above `floor` in the view's pixels; the detector's own NMS and settings.

    Its score_thr must not be above `floor`: what it hides can't be found afterwards. A lower one does no
    harm: in NMS a lower score never suppresses a higher one.
    """
    from mmdet.structures.bbox import get_box_tensor  # late, as in _samples

    check_bound(type(detector).__name__, detector.test_cfg, floor)
    view = view.within_extent()
    found = detector.predict(view.images, _samples(view), rescale=False)
    kept = [each.pred_instances[each.pred_instances.scores > floor] for each in found]
    return BoxLabels.pad(
        [get_box_tensor(each.bboxes) for each in kept],
        [each.labels for each in kept],
        [each.scores for each in kept],
    )


def check_bound(name: str, test_cfg: Any, floor: float) -> None:
    """Raises UserError where a detector's own score_thr hides boxes with scores above `floor`."""
    test = test_cfg or {}
    bound = (test.get("rcnn") or test).get("score_thr", 0.0)
    if bound > floor:
        raise UserError(
            f"detector {name}: score_thr={bound} in its test_cfg hides boxes that the "
            f"method asks for (scores above {floor}): set it to {floor} or less"
        )


def _samples(view: View, labels: BoxLabels | None = None) -> list[Any]:
    """A view's images as mmdet's data samples, with the valid labels as annotations."""
    # mmdet's structures load mmcv's kernels: only after kernels.install(), which import time may precede.
    from mmdet.structures import DetDataSample

    # sync: mmdet takes sizes as numbers and boxes without padding.
    sizes, padded = torch.stack([view.size, view.padded]).int().tolist()
    samples = []
    for image, (size, pad) in enumerate(zip(sizes, padded, strict=True)):
        meta = dict(
            img_shape=tuple(size),
            ori_shape=tuple(size),
            pad_shape=tuple(pad),
            batch_input_shape=tuple(view.images.shape[2:]),
            scale_factor=(1.0, 1.0),
        )
        sample = DetDataSample(metainfo=meta)
        if labels is not None:
            sample.gt_instances = _instances(labels, image, labels.valid)
            sample.ignored_instances = _instances(labels, image, torch.zeros_like(labels.valid))
        samples.append(sample)
    return samples


def _instances(labels: BoxLabels, image: int, mask: Tensor) -> InstanceData:
    """The labels of one image where `mask` (B, K) holds, as mmdet's annotations."""
    chosen = mask[image]
    return InstanceData(bboxes=labels.boxes[image, chosen], labels=labels.classes[image, chosen])
