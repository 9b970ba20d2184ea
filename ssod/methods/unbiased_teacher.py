"""Unbiased Teacher (Liu et al. 2021, arXiv 2102.09480): an EMA teacher's hard labels, classes only, focal."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..core.losses import focal_cross_entropy
from ..core.schedules import Ramp
from ..core.selection import Policy, Selection
from ..errors import UserError
from ..models.views import SemiBatch
from ..registry import METHODS, MODELS
from .base import Method, hard_label_losses, hard_labels

PUBLISHED_WEIGHT = Ramp(4.0, start=2_000)


@METHODS.register_module()
class UnbiasedTeacher(Method):
    """Burn-in on labels alone; then the teacher's detections above δ teach classes, and no box.

    The other half of the idea, the focal class loss, belongs to the detector:
    `bbox_head.loss_cls=dict(type="SoftmaxFocalLoss")`, as in the released code, where labeled images and
    burn-in have it, too.

    unsup_weight: λ_u, its `start` ends the burn-in · min_score: δ, or a Selection ·
    min_visible: share of a box that the strong view must still show.
    """

    needs_teacher = True

    def __init__(
        self,
        unsup_weight: float | dict[str, object] | Ramp = PUBLISHED_WEIGHT,
        min_score: Policy = 0.7,
        min_visible: float = 0.0,
    ) -> None:
        super().__init__(unsup_weight)
        self.selection = Selection.of(min_score)
        self.min_visible = min_visible

    def losses(
        self, student: nn.Module, teacher: nn.Module | None, batch: SemiBatch, weight: float
    ) -> dict[str, Tensor]:
        """Eq. 2: supervised losses + λ_u · (RPN and RoI classification against the teacher's boxes)."""
        assert teacher is not None
        _, labels = hard_labels(teacher, self.selection, batch, self.min_visible)
        losses = hard_label_losses(student, batch, labels, weight, box_loss=False)
        return losses | {"num_boxes_cls": labels.per_image()}

    def pseudo_labels(
        self, student: nn.Module, teacher: nn.Module | None, batch: SemiBatch
    ) -> dict[str, Any]:
        """The teacher's boxes in both views; all of them teach."""
        assert teacher is not None
        weak, strong = hard_labels(teacher, self.selection, batch, self.min_visible)
        return {"weak": weak, "strong": strong, "masks": {"labels": strong.valid}}


@MODELS.register_module()
class SoftmaxFocalLoss(nn.Module):
    """The class loss of a softmax head, (1 - p)^gamma · (-log p), in the form that mmdet's heads call.

    gamma: 1.5 in the released code · loss_weight: a factor.
    """

    def __init__(self, gamma: float = 1.5, loss_weight: float = 1.0) -> None:
        super().__init__()
        if gamma < 0:
            raise UserError(f"SoftmaxFocalLoss: gamma is {gamma}; 0 is cross-entropy, more is focal")
        self.gamma = gamma
        self.loss_weight = loss_weight

    def forward(
        self,
        cls_score: Tensor,
        label: Tensor,
        weight: Tensor | None = None,
        avg_factor: Tensor | float | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """Values (N,) of logits (N, C + 1), times `weight` (N,); by default their sum / avg_factor or N."""
        values = self.loss_weight * focal_cross_entropy(cls_score, label, self.gamma)
        if weight is not None:
            values = values * weight
        if reduction_override == "none":
            return values
        if reduction_override == "sum":
            return values.sum()
        return values.sum() / (len(values) if avg_factor is None else avg_factor)
