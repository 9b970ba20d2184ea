"""Heads that find a wanted number of boxes: a briefly trained detector is sure of nothing yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from ssod.core.labels import BoxLabels
from ssod.models import frcnn
from ssod.models.jitter import BoxJitter
from ssod.models.supported import two_stage_fault
from ssod.models.views import SemiBatch, View

DEVIATIONS = (2.0, 4.0, 8.0, 16.0)  # of class logits over boxes; larger ones make surer scores
SURE = 0.9
SURE_SHARE = 1 / 3  # of the candidates, at least, are above the thresholds of the paper
TRIES = 14


@dataclass(frozen=True)
class _Seen:
    """What a detector's RPN and head say of a view: the parts of `frcnn.detect` before its NMS."""

    pyramid: frcnn.Features
    found: BoxLabels
    logits: Tensor  # (B, N, C + 1), mean 0 and deviation 1 in each class
    codes: Tensor

    def labels(self, detector: Any, view: View, floor: float, deviation: float, bias: float) -> BoxLabels:
        """`frcnn.detect`'s labels if the logits had this deviation, and background this much more."""
        logits = self.logits * deviation
        logits[..., -1] += bias
        with (
            mock.patch.object(frcnn, "features", lambda *_: self.pyramid),
            mock.patch.object(frcnn, "rpn_forward", lambda *_: None),
            mock.patch.object(frcnn, "proposals", lambda *_: self.found),
            mock.patch.object(frcnn, "roi_forward", lambda *_: [(logits, self.codes)]),
        ):
            return frcnn.detect(detector, view, floor)[0]


@torch.no_grad()
def make_lively(model: Any, batch: SemiBatch, boxes: int) -> None:
    """Scales the last layers so that about `boxes` candidates an image come, a third of them at 0.9.

    For two-stage detectors; any other is left as it is. The features, and what a few steps of training have
    made of them, stay: each channel of the last layers gets mean 0 and one deviation over the boxes of the
    weak views, then the background's bias is bisected. The teacher becomes a copy of the student.
    """
    if two_stage_fault(model.student) is not None:
        return
    detector, view = model.student, batch.weak or batch.strong or batch.labeled
    head, floor = detector.roi_head.bbox_head, float(getattr(model.method, "floor", 0.5))
    pyramid = frcnn.features(detector, view.images)
    rpn = frcnn.rpn_forward(detector, pyramid)
    standardise(detector.rpn_head.rpn_cls, rpn.logits[..., None], 2.0)
    standardise(detector.rpn_head.rpn_reg, rpn.deltas[..., None], 0.3)
    rpn = frcnn.rpn_forward(detector, pyramid)
    found = frcnn.proposals(detector, rpn, view, detector.test_cfg.rpn)
    [(logits, codes)] = frcnn.roi_forward(detector, pyramid, [(0, found.boxes)])
    standardise(head.fc_reg, codes, 0.3)
    standardise(head.fc_cls, logits, 1.0)
    [(logits, codes)] = frcnn.roi_forward(detector, pyramid, [(0, found.boxes)])
    seen = _Seen(pyramid, found, logits, codes)
    deviation, bias = _search(seen, detector, view, floor, boxes)
    head.fc_cls.weight.mul_(deviation)
    head.fc_cls.bias.mul_(deviation)
    head.fc_cls.bias[-1] += bias
    model.start()


def _search(seen: _Seen, detector: Any, view: View, floor: float, boxes: int) -> tuple[float, float]:
    """The deviation and the background's bias with which `boxes` an image are found, a share of them sure."""
    best = (DEVIATIONS[-1], 0.0)
    for deviation in DEVIATIONS:
        low, high = -10.0 * deviation, 10.0 * deviation
        for _ in range(TRIES):
            middle = (low + high) / 2
            labels = seen.labels(detector, view, floor, deviation, middle)
            low, high = (middle, high) if labels.per_image() > boxes else (low, middle)
        best = (deviation, (low + high) / 2)
        labels = seen.labels(detector, view, floor, *best)
        enough = labels.per_image() > boxes / 2
        if enough and labels.score_above(SURE).per_image() >= SURE_SHARE * boxes:
            break
    return best


@torch.no_grad()
def standardise(layer: nn.Module, output: Tensor, deviation: float) -> None:
    """Scales a linear layer so that each channel of its output (..., C) has mean 0 and this deviation.

    An output of one channel for a layer of several is what all of them give, taken together.
    """
    flat = output.flatten(0, -2)
    weight, bias = layer.weight, layer.bias
    assert isinstance(weight, Tensor) and isinstance(bias, Tensor)
    scale = (deviation / flat.std(dim=0).clamp(min=1e-6)).expand(len(weight))
    bias.copy_((bias - flat.mean(dim=0).expand(len(weight))) * scale)
    weight.mul_(scale.view(-1, *[1] * (weight.dim() - 1)))


@torch.no_grad()
def widen_spread(model: Any, batch: SemiBatch) -> float | None:
    """The bound on the spread that Soft Teacher's boxes are then measured with; None where none is measured.

    A detector that has learned little moves no jittered copy back: with the config's bound no box would
    teach the regressor. Then the median of what is found takes its place, for mmdet's step as well.
    """
    if not isinstance(getattr(model.method, "jitter", None), BoxJitter) or batch.weak is None:
        return None
    found = model.pseudo_labels(batch)["weak"]
    if found.spread is None:
        return None
    spread = found.spread[found.valid]
    bound = float(model.method.box_max_spread)
    if len(spread) and (spread < bound).float().mean() < SURE_SHARE:
        model.method.box_max_spread = float(spread.median()) * 1.0001
    return float(model.method.box_max_spread)
