"""A method that the package knows nothing of: the mean prediction of both views shall agree in scale."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssod.methods.base import Method
from ssod.models.student import supervised_losses
from ssod.models.views import SemiBatch
from ssod.registry import METHODS


@METHODS.register_module()
class OutsideMethod(Method):
    """Supervised losses, and the strong view's features must be as large as the weak view's.

    steps: a buffer, so that a checkpoint must hold it.
    """

    def __init__(self, unsup_weight: float = 1.0) -> None:
        super().__init__(unsup_weight)
        self.register_buffer("steps", torch.zeros(()))

    def losses(
        self, student: nn.Module, teacher: nn.Module | None, batch: SemiBatch, weight: float
    ) -> dict[str, Tensor]:
        """One more step, counted."""
        self.steps += 1
        losses = {f"sup_{key}": value for key, value in supervised_losses(student, batch).items()}
        with torch.no_grad():
            wanted = [level.abs().mean() for level in student.extract_feat(batch.weak.images)]
        found = [level.abs().mean() for level in student.extract_feat(batch.strong.images)]
        apart = torch.stack([(a - b).square() for a, b in zip(found, wanted, strict=True)])
        return losses | {"unsup_loss_scale": weight * apart.mean()}
