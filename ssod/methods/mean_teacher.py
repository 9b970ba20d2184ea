"""Mean Teacher (Tarvainen & Valpola 2017, arXiv 1703.01780), region by region: consistency, no labels."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from ..core.geometry import box_sides, clip_boxes, project_boxes
from ..core.labels import BoxLabels
from ..core.losses import consistency_mse
from ..core.schedules import Ramp
from ..errors import UserError
from ..models import frcnn
from ..models.student import StudentPass
from ..models.views import SemiBatch
from ..registry import METHODS
from .base import Method, named, supervised_group


@METHODS.register_module()
class MeanTeacher(Method):
    """The student's regions are scored by both networks, each on its own view; the student must agree.

    The paper is about classification. Consistency, its square and its ramp are the paper's; that it is per
    region, and what follows here, are choices of ours: regions are the student's best proposals after NMS.

    unsup_weight: λ_u; the square is a mean over the K + 1 classes, so it grows with K · num_regions: at most
    so many an image · box_weight: w_box · floor: the teacher's foreground probability, 1 - background, above
    which a region's box counts · rpn_weight: of the objectness consistency, 0 leaves it out.
    """

    needs_teacher = True
    needs = frozenset({"two_stage"})

    def __init__(
        self,
        unsup_weight: float | dict[str, object] | Ramp = 10.0,
        num_regions: int = 128,
        box_weight: float = 1.0,
        floor: float = 0.5,
        rpn_weight: float = 0.0,
    ) -> None:
        super().__init__(unsup_weight)
        if num_regions < 1:
            raise UserError(f"MeanTeacher: num_regions is {num_regions}; compare at least 1 an image")
        for name, value in (("box_weight", box_weight), ("rpn_weight", rpn_weight)):
            if value < 0:
                raise UserError(f"MeanTeacher: {name} is {value}; a weight is 0 (leaves it out) or more")
        self.num_regions = num_regions
        self.box_weight = box_weight
        self.floor = floor
        self.rpn_weight = rpn_weight

    def losses(
        self, student: nn.Module, teacher: nn.Module | None, batch: SemiBatch, weight: float
    ) -> dict[str, Tensor]:
        """One student pass, the same regions in both views, two scores each, J(θ) of classes and boxes."""
        assert teacher is not None and batch.weak is not None and batch.strong is not None
        joint = StudentPass(student, labeled=batch.labeled, strong=batch.strong)
        strong, weak = self.regions(joint, batch)
        with torch.no_grad():
            pyramid = frcnn.features(teacher, batch.weak.images)
            weak_features = frcnn.cut(teacher, pyramid, batch.weak.extent)
            [(teacher_logits, teacher_codes)] = frcnn.roi_forward(teacher, weak_features, [(0, weak.boxes)])
        labeled = supervised_group(joint, batch.truth)
        first_strong = len(batch.labeled.images)
        [(logits, codes), (student_logits, student_codes)] = frcnn.roi_forward(
            student, joint.pyramid, [(0, labeled.boxes), (first_strong, strong.boxes)]
        )

        scores = teacher_logits.softmax(dim=-1)  # (U, R, K + 1), background last
        sure = strong.valid & (1 - scores[..., -1] > self.floor)
        classes = scores[..., :-1].argmax(dim=-1)  # both decode the codes of the teacher's class
        student_boxes = frcnn.apply_codes(student, strong.boxes, student_codes, classes, batch.strong.size)
        teacher_boxes, sides = self.boxes_in_strong(teacher, weak.boxes, teacher_codes, classes, batch)
        # The weak view may show a sliver of a region: what the teacher makes of that is no unit.
        unit = torch.maximum(sides, box_sides(strong.boxes))
        box_loss = consistency_mse(student_boxes, teacher_boxes, sure, unit)
        unsup = {
            "loss_cls": consistency_mse(student_logits.softmax(dim=-1), scores, strong.valid),
            "loss_bbox": self.box_weight * box_loss,
        }
        if self.rpn_weight > 0:
            with torch.no_grad():
                target = frcnn.objectness(frcnn.rpn_forward(teacher, pyramid, batch.weak.extent), weak.boxes)
            score = frcnn.objectness(joint.rpn.rows(slice(first_strong, None)), strong.boxes)
            rpn_loss = consistency_mse(score[..., None], target[..., None], strong.valid)
            unsup["loss_rpn_cls"] = self.rpn_weight * rpn_loss
        sup = joint.rpn_losses("labeled", batch.truth) | frcnn.roi_losses(student, logits, codes, labeled)
        counts = {"regions": strong, "box": strong.where(sure)}
        return named(sup, unsup, weight) | {
            f"num_boxes_{name}": each.per_image() for name, each in counts.items()
        }

    @torch.no_grad()
    def regions(self, joint: StudentPass, batch: SemiBatch) -> tuple[BoxLabels, BoxLabels]:
        """The student's best proposals in the strong and in the weak view; valid where both show them."""
        assert batch.weak is not None and batch.strong_to_weak is not None
        found = joint.proposals("strong").first(self.num_regions)
        weak = found.with_boxes(project_boxes(found.boxes, batch.strong_to_weak, batch.weak.size))
        return replace(found, valid=weak.valid), weak

    @torch.no_grad()
    def boxes_in_strong(
        self, teacher: nn.Module, boxes: Tensor, codes: Tensor, classes: Tensor, batch: SemiBatch
    ) -> tuple[Tensor, Tensor]:
        """The teacher's refined boxes (U, R, 4), carried from the weak view to where the student's are.

        And their sides there, before any clipping: what is left of a box at a view's edge may be thin.
        """
        assert batch.weak is not None and batch.strong is not None and batch.weak_to_strong is not None
        whole = frcnn.apply_codes(teacher, boxes, codes, classes, None)
        seen = project_boxes(clip_boxes(whole, batch.weak.size), batch.weak_to_strong, batch.strong.size)
        return seen, box_sides(project_boxes(whole, batch.weak_to_strong, None))
