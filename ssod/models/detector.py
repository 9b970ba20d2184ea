"""SemiDetector: student + teacher + method, nothing else."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from mmdet.models.detectors.base import BaseDetector
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.config import ConfigDict
from torch import Tensor

from ..errors import UserError, check_choice
from ..registry import METHODS, MODELS, TEACHERS
from .any_detector import Detector
from .compiled import Compilation, as_written
from .folding import fold_norms as fold_norms_of
from .student import supervised_losses
from .supported import check_detector, check_method, two_stage_fault, without_masks
from .views import SemiBatch


@MODELS.register_module()
class SemiDetector(BaseDetector):  # type: ignore[misc]
    """A detector in training: a student, perhaps its teacher, and the method that says what they learn.

    detector: config of an mmdet detector, built once for the student and once for the teacher ·
    method: config of a Method, or None for supervised training through the same code ·
    teacher: config of EMATeacher or FrozenTeacher, or None: then the student is the only network ·
    data_preprocessor: config of SemiPreprocessor · teacher_dtype: "bfloat16" or "float16" for the
    teacher's layers while it labels, not for its boxes (testing keeps its own precision) · fold_norms:
    BatchNorm that keeps its statistics becomes part of its convolution (models/folding.py) · compile:
    torch.compile for training, True or a dict (see Compilation); predictions don't use it. Checkpoint keys:
    `student.*`, `teacher.*`.
    """

    def __init__(
        self,
        detector: dict[str, Any],
        method: dict[str, Any] | None = None,
        teacher: dict[str, Any] | None = None,
        data_preprocessor: dict[str, Any] | None = None,
        teacher_dtype: str = "float32",
        fold_norms: bool = True,
        compile: bool | dict[str, Any] = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        boxes_only = without_masks(ConfigDict(detector)).to_dict()
        # A fresh copy for each: some constructors (DINO's) write into their config and refuse it afterwards.
        self.student: Detector = MMDET_MODELS.build(ConfigDict(boxes_only))
        check_detector(self.student)
        self.method: Any = METHODS.build(method) if method is not None else None
        if self.method is not None:
            check_method(self.method, self.student)
        self.policy: Any = TEACHERS.build(teacher) if teacher is not None else None
        self.teacher: Detector | None = None
        if self.policy is not None:
            self.teacher = MMDET_MODELS.build(ConfigDict(boxes_only)).requires_grad_(False).eval()
        elif getattr(self.method, "needs_teacher", False):
            raise UserError(
                f"method {type(self.method).__name__} needs model.teacher, e.g. dict(type='EMATeacher')"
            )
        if teacher_dtype != "float32":
            self._set_teacher_dtype(teacher_dtype)
        if fold_norms:
            for network in filter(None, (self.student, self.teacher)):
                fold_norms_of(*network.children())
        # A step is about 8 % faster for it on a CPU (a GPU was not measured); checkpoints are the same.
        self.to(memory_format=torch.channels_last)
        self.compilation = Compilation.of(compile)
        if self.compilation is not None:
            fixed = getattr(self.data_preprocessor, "pad_to", None) is not None
            for network in filter(None, (self.student, self.teacher)):
                self.compilation.apply(network, fixed)
        self.step = 0

    def _set_teacher_dtype(self, dtype: str) -> None:
        check_choice("model", "teacher_dtype", dtype, ("float32", "bfloat16", "float16"))
        fault = two_stage_fault(self.student)
        if self.teacher is None or fault is not None:
            raise UserError(
                f"model: teacher_dtype={dtype!r} needs "
                + ("model.teacher" if self.teacher is None else f"a two-stage detector: {fault}")
            )
        self.teacher.network_dtype = getattr(torch, dtype)

    @property
    def which(self) -> tuple[str, ...]:
        """The networks there are to evaluate, the one to ship first."""
        return ("teacher", "student") if self.teacher is not None else ("student",)

    def train(self, mode: bool = True) -> SemiDetector:
        """The student follows `mode`; the teacher stays in eval, whoever calls."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    # ------------------------------------------------------------ time, told by the engine

    def start(self) -> None:
        """Teacher := student: before the first step of a fresh run, and where burn-in ends."""
        if self.policy is not None and self.teacher is not None:
            self.policy.start(self.teacher, self.student)

    @property
    def burn_in(self) -> int:
        """Iterations of supervised training alone, after which the teacher starts again; 0 for none."""
        iterations: int = 0 if self.method is None else self.method.unsup_weight.start
        return iterations

    def set_step(self, step: int) -> None:
        """Before each iteration, its 0-based number."""
        self.step = step
        if step == self.burn_in > 0:
            self.start()

    def after_step(self, step: int, taken: Tensor | None = None) -> None:
        """After an optimizer step: the teacher follows. taken: whether it was taken, a bool on the device."""
        if self.policy is not None and self.teacher is not None:
            self.policy.follow(self.teacher, self.student, step, taken)

    # ------------------------------------------------------------ losses

    def loss(self, batch_inputs: SemiBatch, batch_data_samples: None = None) -> dict[str, Tensor]:
        """The step's losses; the keys depend on the step alone, never on what the images hold."""
        weight = 0.0 if self.method is None else self.method.unsup_weight(self.step)
        if self.method is None or weight == 0.0 or batch_inputs.strong is None:
            supervised = supervised_losses(self.student, batch_inputs)
            return {f"sup_{key}": value for key, value in supervised.items()}
        losses: dict[str, Tensor] = self.method.losses(self.student, self.teacher, batch_inputs, weight)
        losses["unsup_weight"] = batch_inputs.strong.images.new_full((), weight)
        return losses

    @torch.no_grad()
    def pseudo_labels(self, batch: SemiBatch) -> dict[str, Any] | None:
        """What the method makes of a batch's unlabeled images, for pictures and telemetry; or None."""
        if self.method is None or batch.strong is None:
            return None
        labels: dict[str, Any] | None = self.method.pseudo_labels(self.student, self.teacher, batch)
        return labels

    # ------------------------------------------------------------ predictions

    def network(self, which: str | None = None) -> Detector:
        """The plain mmdet detector called "teacher" or "student"; by default the one to ship."""
        name = which or self.which[0]
        if name not in self.which:
            raise UserError(f"there is no {name} in this model, only {' and '.join(self.which)}")
        return self.teacher if name == "teacher" and self.teacher is not None else self.student

    def predict(
        self, batch_inputs: Tensor, batch_data_samples: list[Any], which: str | None = None
    ) -> list[Any]:
        """Data samples with `pred_instances` in original-image pixels, from the chosen network."""
        with self._as_written():
            return list(self.network(which).predict(batch_inputs, batch_data_samples))

    def _forward(self, batch_inputs: Tensor, batch_data_samples: Any = None) -> Any:
        with self._as_written():
            return self.network()._forward(batch_inputs, batch_data_samples)

    def extract_feat(self, batch_inputs: Tensor) -> Any:
        """The feature pyramid of the network to ship."""
        with self._as_written():
            return self.network().extract_feat(batch_inputs)

    def _as_written(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.compilation is None else as_written()
