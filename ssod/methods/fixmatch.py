"""FixMatch (Sohn et al. 2020, arXiv 2001.07685) for boxes: what a model is sure of on the weak view."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn

from ..core.labels import BoxLabels
from ..core.schedules import Ramp
from ..core.selection import Policy, Selection
from ..errors import check_choice
from ..models.views import SemiBatch
from ..registry import METHODS
from .base import Method, hard_label_losses, hard_labels


@METHODS.register_module()
class FixMatch(Method):
    """Detections of the weak view above τ are ground truth for the strong view; without any, no loss.

    unsup_weight: λ_u · min_score: τ, or a Selection; the paper's 0.95 is for classification, where every
    image has a class to be sure of, and a detector's scores after NMS seldom reach it · box_loss: False
    leaves the classification terms only · min_visible: share of a box that the strong view must still show ·
    labeler: "student", the model itself without gradient (the paper; a teacher, if there is one, is only
    evaluated), or "teacher" ("E2E + EMA" of Soft Teacher's ablation).
    """

    def __init__(
        self,
        unsup_weight: float | dict[str, object] | Ramp = 1.0,
        min_score: Policy = 0.9,
        box_loss: bool = True,
        min_visible: float = 0.0,
        labeler: Literal["student", "teacher"] = "student",
    ) -> None:
        super().__init__(unsup_weight)
        check_choice("FixMatch", "labeler", labeler, ("student", "teacher"), "STAC takes labels from a file")
        self.selection = Selection.of(min_score)
        self.box_loss = box_loss
        self.min_visible = min_visible
        self.labeler = labeler
        self.needs_teacher = labeler == "teacher"

    def losses(
        self, student: nn.Module, teacher: nn.Module | None, batch: SemiBatch, weight: float
    ) -> dict[str, Tensor]:
        """Eq. 3 and 4: label the weak view, keep what is sure, learn it on the strong view."""
        _, labels = self.label(student, teacher, batch)
        losses = hard_label_losses(student, batch, labels.skip_empty(), weight, self.box_loss)
        return losses | {"num_boxes_cls": labels.per_image()}

    def label(
        self, student: nn.Module, teacher: nn.Module | None, batch: SemiBatch
    ) -> tuple[BoxLabels, BoxLabels]:
        """The labeler's sure detections in the weak and in the strong view's pixels, without gradient."""
        network = teacher if self.labeler == "teacher" else student
        assert network is not None
        return hard_labels(network, self.selection, batch, self.min_visible)

    def pseudo_labels(
        self, student: nn.Module, teacher: nn.Module | None, batch: SemiBatch
    ) -> dict[str, Any]:
        """The labels in both views; all of them teach."""
        weak, strong = self.label(student, teacher, batch)
        return {"weak": weak, "strong": strong, "masks": {"labels": strong.valid}}
