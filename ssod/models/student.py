"""StudentPass: trunk and RPN once over all views of a step, the RoI head once over all box groups.

And what a hard-label method asks of any detector: its losses on views, its detections.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from ..core.labels import BoxLabels
from . import any_detector, frcnn
from .supported import two_stage_fault
from .views import SemiBatch, View

Groups = Mapping[str, tuple[str, frcnn.RoITargets]]  # {group: (name of its view, targets)}


class StudentPass:
    """One joint forward of a two-stage detector over named views, e.g. `labeled` and `strong`.

    One pass over the stacked images costs fewer operators than one per view, and equals them exactly as long
    as no BatchNorm uses batch statistics. With trainable BatchNorm the views share their statistics.
    """

    def __init__(self, detector: frcnn.Detector, **views: View) -> None:
        self.detector = detector
        self.views = views
        images = [view.images for view in views.values()]
        self._rows: dict[str, slice] = {}
        first = 0
        for name, view in views.items():
            self._rows[name] = slice(first, first + len(view.images))
            first += len(view.images)
        pyramid = frcnn.features(detector, torch.cat(images) if len(images) > 1 else images[0])
        extent = next(iter(views.values())).extent  # all were padded together
        self.rpn = frcnn.rpn_forward(detector, pyramid, extent)
        self.pyramid = frcnn.cut(detector, pyramid, extent)
        config = detector.train_cfg.get("rpn_proposal", detector.test_cfg.rpn)
        found = frcnn.proposals_of_views(detector, self.rpn, list(views.values()), config)
        self._proposals = dict(zip(views, found, strict=True))

    def rpn_losses(self, name: str, labels: BoxLabels) -> dict[str, Tensor]:
        """The RPN's losses on one view against labels in that view's pixels."""
        rows = self.rpn.rows(self._rows[name])
        return frcnn.rpn_losses(self.detector, rows, labels.class_agnostic(), self.views[name])

    def proposals(self, name: str) -> BoxLabels:
        """The RPN's boxes on one view, without gradient."""
        return self._proposals[name]

    def roi_outputs(self, groups: Groups) -> dict[str, tuple[Tensor, Tensor]]:
        """Class logits (B, S, C + 1) and box codes of every box group, one head call for all."""
        boxes = [(self._rows[name].start, targets.boxes) for name, targets in groups.values()]
        outputs = frcnn.roi_forward(self.detector, self.pyramid, boxes)
        return dict(zip(groups, outputs, strict=True))

    def roi_losses(
        self, groups: Groups, outputs: Mapping[str, tuple[Tensor, Tensor]] | None = None
    ) -> dict[str, dict[str, Tensor]]:
        """Losses of every box group: {group: losses}, one head call.

        outputs: those of `roi_outputs`, for who must see them before the weights of the targets are known.
        """
        outputs = self.roi_outputs(groups) if outputs is None else outputs
        return {
            group: frcnn.roi_losses(self.detector, *outputs[group], targets)
            for group, (_, targets) in groups.items()
        }


def detection_losses(
    detector: any_detector.Detector, views: Mapping[str, tuple[View, BoxLabels]]
) -> dict[str, dict[str, Tensor]]:
    """The ordinary losses of each view against its labels: {name: (view, labels)} -> {name: losses}.

    One joint pass where frcnn.py computes the detector exactly, else mmdet's own losses, view by view.
    """
    if two_stage_fault(detector) is not None:
        return {name: any_detector.losses(detector, *each) for name, each in views.items()}
    joint = StudentPass(detector, **{name: view for name, (view, _) in views.items()})
    targets = {
        name: (name, frcnn.sample_rois(detector, joint.proposals(name), labels))
        for name, (_, labels) in views.items()
    }
    losses = {name: joint.rpn_losses(name, labels) for name, (_, labels) in views.items()}
    return {name: losses[name] | rois for name, rois in joint.roi_losses(targets).items()}


def supervised_losses(detector: any_detector.Detector, batch: SemiBatch) -> dict[str, Tensor]:
    """The losses of the labeled images alone: the supervised twin, and every method during burn-in."""
    return detection_losses(detector, {"labeled": (batch.labeled, batch.truth)})["labeled"]


def detect(detector: any_detector.Detector, view: View, floor: float) -> BoxLabels:
    """A detector's boxes on a view with score above `floor`, as in testing, without gradient."""
    with evaluating(detector):
        if two_stage_fault(detector) is None:
            labels, _ = frcnn.detect(detector, view, floor)
        else:
            labels = any_detector.detect(detector, view, floor)
    # Autocast of older torch keeps half-precision weights that were made without gradient (its issue 65766):
    # a student that labels for itself would train on them.
    torch.clear_autocast_cache()
    return labels


@contextmanager
def evaluating(detector: any_detector.Detector) -> Iterator[None]:
    """A block in which the detector is in eval; every module gets back the mode it had.

    A student that labels for itself is in training, where BatchNorm would move, and where some heads decode
    boxes in another way (FCOS with norm_on_bbox leaves out the stride).
    """
    modes = [(module, module.training) for module in detector.modules()]
    detector.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
