"""STAC (Sohn et al. 2020, arXiv 2005.04757): labels from a file, strong augmentation."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..core.labels import BoxLabels
from ..core.schedules import Ramp
from ..core.selection import Policy, ScoreAbove, Selection
from ..errors import UserError
from ..models.views import SemiBatch
from ..registry import METHODS
from .base import Method, hard_label_losses


@METHODS.register_module()
class STAC(Method):
    """The student's stage: pseudo boxes that a trained teacher left in a file are truth for the strong view.

    The teacher is not in memory. It was trained on the labeled images and labeled the others before
    (`ssod/engine/offline/stages.py`); its boxes come with the images (`PseudoLabeled`), moved as the strong
    view was.

    unsup_weight: λ_u, 2 in the paper · min_score: τ, the score from which on a pseudo box counts, or a
    Selection.
    """

    needs_file = True

    def __init__(self, unsup_weight: float | dict[str, object] | Ramp = 2.0, min_score: Policy = 0.9) -> None:
        super().__init__(unsup_weight)
        # As the file is written: a score that is τ, when rounded, counts.
        given = ScoreAbove(min_score, inclusive=True) if isinstance(min_score, int | float) else min_score
        self.selection = Selection.of(given)

    def losses(
        self, student: nn.Module, teacher: nn.Module | None, batch: SemiBatch, weight: float
    ) -> dict[str, Tensor]:
        """L_s + λ_u L_u: the same detection losses of the labeled and of the strongly augmented images."""
        labels = self.select(batch)
        losses = hard_label_losses(student, batch, labels, weight)
        return losses | {
            "num_boxes_candidates": offline(batch).per_image(),
            "num_boxes_cls": labels.per_image(),
        }

    def select(self, batch: SemiBatch) -> BoxLabels:
        """The pseudo boxes with a score >= τ, the paper's indicator; an image without any has no loss."""
        selected: BoxLabels = self.selection(offline(batch))
        return selected.skip_empty()

    def pseudo_labels(
        self, student: nn.Module, teacher: nn.Module | None, batch: SemiBatch
    ) -> dict[str, Any]:
        """The boxes of the file on the strong view, and which of them it learns from."""
        return {"strong": offline(batch), "masks": {"all losses": self.select(batch).valid}}


def offline(batch: SemiBatch) -> BoxLabels:
    """The labels that came with the strong view; UserError for unlabeled images without any."""
    if batch.strong_labels is None:
        raise UserError(
            "STAC learns from labels in a file, and the unlabeled dataset has none: make it a PseudoLabeled "
            "with a pipeline of offline(...), as in configs/stac"
        )
    return batch.strong_labels
