"""A teacher that finds as many sure boxes as it is told to, at the price of finding its own."""

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

import torch

from ssod.core.labels import BoxLabels
from ssod.models import any_detector, frcnn
from ssod.models.views import View

SURE = 0.95


@contextmanager
def forced(model: Any, boxes: int, jitters: int | None = None) -> Iterator[None]:
    """A block in which whoever labels finds so many sure boxes an image, and Soft Teacher trusts them all."""
    method, num_classes = model.method, _num_classes(model.student)
    detect, detect_any = frcnn.detect, any_detector.detect

    def found(detector: Any, view: View, floor: float) -> tuple[BoxLabels, frcnn.Features]:
        _, pyramid = detect(detector, view, floor)
        return sure_boxes(view, boxes, num_classes), pyramid

    def found_any(detector: Any, view: View, floor: float) -> BoxLabels:
        detect_any(detector, view, floor)
        return sure_boxes(view, boxes, num_classes)

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(frcnn, "detect", found))
        stack.enter_context(mock.patch.object(any_detector, "detect", found_any))
        if hasattr(method, "box_max_spread"):
            stack.enter_context(mock.patch.object(method, "box_max_spread", math.inf))
        if jitters is not None:
            more = replace(method.jitter, num_jitters=jitters)
            stack.enter_context(mock.patch.object(method, "jitter", more))
        yield


def _num_classes(detector: Any) -> int:
    head = detector.roi_head.bbox_head if hasattr(detector, "roi_head") else detector.bbox_head
    return int(getattr(head, "num_classes", 1))


def sure_boxes(view: View, boxes: int, num_classes: int) -> BoxLabels:
    """Random boxes of a tenth to a third of a view's sides, so many in each image, of any class."""
    images, device = len(view.size), view.size.device
    if boxes == 0:
        none = torch.zeros(0, device=device)
        return BoxLabels.pad([none.view(0, 4)] * images, [none.long()] * images, [none] * images)
    corner = torch.rand(images, boxes, 2, device=device) * 0.66
    sides = 0.1 + torch.rand(images, boxes, 2, device=device) * 0.23
    scale = view.size.flip(-1)[:, None].repeat(1, 1, 2)  # (B, 1, 4): width, height twice
    return BoxLabels(
        boxes=torch.cat([corner, corner + sides], dim=-1) * scale,
        classes=torch.randint(num_classes, (images, boxes), device=device),
        scores=torch.full((images, boxes), SURE, device=device),
        valid=torch.ones(images, boxes, dtype=torch.bool, device=device),
    )
