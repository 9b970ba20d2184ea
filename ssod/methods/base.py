"""Method: what a semi-supervised method is to the rest of the code, and the losses most of them share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..core.labels import BoxLabels, project_labels
from ..core.schedules import Ramp
from ..core.selection import Selection
from ..errors import UserError
from ..models import frcnn
from ..models.any_detector import is_box_term
from ..models.student import StudentPass, detect, detection_losses
from ..models.views import SemiBatch


class Method(nn.Module, ABC):
    """The contract: losses of one batch. State, if any, lives in buffers, so it is saved and resumed.

    unsup_weight: λ_u(t), a number, a Ramp or a dict of its fields; 0 before `start` is burn-in.
    needs: what a detector must offer, checked when the model is built: nothing (hard labels work with any
    mmdet detector) or "two_stage" (proposals and scores of single regions: models/frcnn.py).
    needs_teacher: an average of the student labels · needs_file: the labels come with the images, from a file
    that engine/stages.py writes.
    """

    needs_teacher = False
    needs_file = False
    needs: frozenset[str] = frozenset()

    def __init__(self, unsup_weight: float | dict[str, object] | Ramp = 1.0) -> None:
        super().__init__()
        try:
            self.unsup_weight = Ramp.of(unsup_weight)
        except (TypeError, ValueError) as error:
            raise UserError(f"{type(self).__name__}: unsup_weight={unsup_weight}: {error}") from error

    @abstractmethod
    def losses(
        self, student: nn.Module, teacher: nn.Module | None, batch: SemiBatch, weight: float
    ) -> dict[str, Tensor]:
        """All losses of a step, `sup_*` and `unsup_*`, the latter already times `weight`."""

    def pseudo_labels(
        self, student: nn.Module, teacher: nn.Module | None, batch: SemiBatch
    ) -> dict[str, Any] | None:
        """What it would teach on this batch: {"weak", "strong": BoxLabels, "masks": {name: (U, K)}}.

        There is no "weak" where the labels come from a file.
        """
        return None


def to_strong(labels: BoxLabels, batch: SemiBatch, min_visible: float = 0.0) -> BoxLabels:
    """Labels of the weak view in the strong view's pixels; what left the view becomes invalid.

    A box also becomes invalid where less than `min_visible` of its area is inside the strong view.
    """
    assert batch.weak_to_strong is not None and batch.strong is not None
    return project_labels(labels, batch.weak_to_strong, batch.strong.size, min_visible)


@torch.no_grad()
def hard_labels(
    labeler: nn.Module, selection: Selection, batch: SemiBatch, min_visible: float = 0.0
) -> tuple[BoxLabels, BoxLabels]:
    """What is selected of the labeler's detections, in the weak and in the strong view's pixels."""
    assert batch.weak is not None
    weak: BoxLabels = selection(detect(labeler, batch.weak, selection.floor))
    return weak, to_strong(weak, batch, min_visible)


def supervised_group(joint: StudentPass, truth: BoxLabels) -> frcnn.RoITargets:
    """The RoI targets of the labeled view inside a joint pass."""
    return frcnn.sample_rois(joint.detector, joint.proposals("labeled"), truth)


def hard_label_losses(
    student: nn.Module, batch: SemiBatch, labels: BoxLabels, weight: float, box_loss: bool = True
) -> dict[str, Tensor]:
    """Supervised losses plus the ordinary detection losses of the strong view against `labels`.

    FixMatch, STAC and the "E2E + EMA" rung, for any detector: pseudo boxes (B, K) taken for truth, in
    the images that `labels.taught` names. box_loss False leaves the classification terms only.
    """
    assert batch.strong is not None
    views = {"labeled": (batch.labeled, batch.truth), "strong": (batch.strong, labels)}
    losses = detection_losses(student, views)
    kept = 1.0 if box_loss else 0.0
    unsup = {key: value * kept if is_box_term(key) else value for key, value in losses["strong"].items()}
    return named(losses["labeled"], unsup, weight)


def named(sup: Mapping[str, Tensor], unsup: Mapping[str, Tensor], weight: float) -> dict[str, Tensor]:
    """One dict with mmdet's prefixes; the unsupervised losses, not the accuracies, times `weight`."""
    return {f"sup_{key}": value for key, value in sup.items()} | {
        f"unsup_{key}": value * weight if "loss" in key else value for key, value in unsup.items()
    }
