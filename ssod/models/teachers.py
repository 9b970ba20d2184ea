"""Where a teacher's weights come from: an average of the student's, or a checkpoint."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from ..core.ema import copy_weights, ema_update, ramped_decay
from ..errors import UserError
from ..registry import TEACHERS


@TEACHERS.register_module()
class EMATeacher:
    """The exponential moving average of the student (Mean Teacher, arXiv 1703.01780).

    decay: α, the share kept each step · ramp: α_t = min(α, 1 - 1 / (t + 1)), so that early steps count ·
    buffers: "copy" (BatchNorm statistics follow the student) or "average".
    """

    def __init__(
        self, decay: float = 0.999, ramp: bool = True, buffers: Literal["copy", "average"] = "copy"
    ) -> None:
        if not isinstance(decay, int | float) or not 0 <= decay <= 1:
            raise UserError(f"EMATeacher: decay is a share in [0, 1], got {decay!r}")
        if buffers not in ("copy", "average"):
            raise UserError(f"EMATeacher: buffers is 'copy' or 'average', not {buffers!r}")
        self.decay = decay
        self.ramp = ramp
        self.buffers = buffers

    def start(self, teacher: nn.Module, student: nn.Module) -> None:
        """Makes the teacher equal to the student: before the first step, and when burn-in ends."""
        copy_weights(teacher, student)

    def follow(self, teacher: nn.Module, student: nn.Module, step: int, taken: Tensor | None = None) -> None:
        """Moves the teacher towards the student after the optimizer step number `step` (from 0).

        Never towards one with an inf or a nan · taken: a bool on the device, whether the step was taken,
        where the host does not know.
        """
        decay = ramped_decay(self.decay, step) if self.ramp else self.decay
        ema_update(teacher, student, decay, self.buffers, taken)


@TEACHERS.register_module()
class FrozenTeacher:
    """A teacher that never changes; its weights come with `load_from` (keys `teacher.*`)."""

    def start(self, teacher: nn.Module, student: nn.Module) -> None:
        """Does nothing: the weights are already those of the checkpoint."""

    def follow(self, teacher: nn.Module, student: nn.Module, step: int, taken: Tensor | None = None) -> None:
        """Does nothing."""
