"""Soft Teacher (Xu et al. 2021, arXiv 2106.09018): soft background weights and box jittering."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..core.geometry import jitter_boxes, project_boxes
from ..core.labels import BoxLabels
from ..core.reliability import background_reliability, box_spread, soften_background
from ..core.schedules import Ramp
from ..errors import UserError
from ..models import frcnn
from ..models.student import StudentPass
from ..models.views import SemiBatch, View
from ..registry import METHODS
from .base import Method, named, supervised_group, to_strong


@METHODS.register_module()
class SoftTeacher(Method):
    """An EMA teacher labels the weak view; three bounds decide what a label may teach on the strong one.

    unsup_weight: λ_u · floor: candidates' score · rpn_min_score, cls_min_score: scores of what the RPN and
    the classifier learn from · box_max_spread: σ̄ of what the regressor learns from, over `num_jitters`
    copies moved by `jitter_fraction` of their side · min_visible: share of a box that the strong view must
    still show · reliability: "teacher_background" (r_j) or "none" (1) ·
    variant: "code" (released code, default) or "paper" for jitter, spread and weights where the two differ.
    """

    needs_teacher = True
    needs = frozenset({"two_stage"})

    def __init__(
        self,
        unsup_weight: float | dict[str, object] | Ramp = 4.0,
        floor: float = 0.5,
        rpn_min_score: float = 0.9,
        cls_min_score: float = 0.9,
        box_max_spread: float = 0.02,
        num_jitters: int = 10,
        jitter_fraction: float = 0.06,
        min_visible: float = 0.0,
        reliability: Literal["teacher_background", "none"] = "teacher_background",
        variant: Literal["code", "paper"] = "code",
    ) -> None:
        super().__init__(unsup_weight)
        if num_jitters < 2:
            raise UserError(f"SoftTeacher: num_jitters is {num_jitters}; a spread needs at least 2 copies")
        if reliability not in ("teacher_background", "none"):
            raise UserError(f"SoftTeacher: reliability {reliability!r}; use 'teacher_background' or 'none'")
        if variant not in ("code", "paper"):
            raise UserError(f"SoftTeacher: variant {variant!r}; use 'code' or 'paper'")
        self.floor = floor
        self.rpn_min_score = rpn_min_score
        self.cls_min_score = cls_min_score
        self.box_max_spread = box_max_spread
        self.num_jitters = num_jitters
        self.jitter_fraction = jitter_fraction
        self.min_visible = min_visible
        self.reliability = reliability
        self.variant: Literal["code", "paper"] = variant

    def losses(
        self, student: nn.Module, teacher: nn.Module | None, batch: SemiBatch, weight: float
    ) -> dict[str, Tensor]:
        """Eq. 1 to 10, top to bottom: label, project, select, one student pass, soften, losses."""
        assert teacher is not None and batch.weak is not None and batch.strong is not None
        candidates, weak_features = self.label(teacher, batch.weak)
        labels = to_strong(candidates, batch, self.min_visible)
        for_rpn, for_class, for_box = self.select(labels).values()

        joint = StudentPass(student, labeled=batch.labeled, strong=batch.strong)
        found = joint.proposals("strong")
        class_targets = frcnn.sample_rois(student, found, for_class)
        class_targets = self.soften(class_targets, teacher, weak_features, batch)
        box_targets = frcnn.sample_rois(student, found, for_box).head(frcnn.max_positives(student))
        rois = joint.roi_losses(
            {
                "labeled": ("labeled", supervised_group(joint, batch.truth)),
                "class": ("strong", class_targets),
                "box": ("strong", box_targets),
            }
        )
        sup = joint.rpn_losses("labeled", batch.truth) | rois["labeled"]
        unsup = joint.rpn_losses("strong", for_rpn)
        unsup |= {"loss_cls": rois["class"]["loss_cls"], "acc": rois["class"]["acc"]}
        unsup |= {"loss_bbox": rois["box"]["loss_bbox"]}
        counts = {"candidates": candidates, "rpn": for_rpn, "cls": for_class, "box": for_box}
        return named(sup, unsup, weight) | {
            f"num_boxes_{name}": each.per_image() for name, each in counts.items()
        }

    @torch.no_grad()
    def label(self, teacher: nn.Module, weak: View) -> tuple[BoxLabels, frcnn.Features]:
        """Candidates on the weak view with their spread under jitter, and the teacher's features."""
        labels, weak_features = frcnn.detect(teacher, weak, self.floor)
        batch, slots = labels.valid.shape
        copies = jitter_boxes(
            labels.boxes, self.num_jitters, self.jitter_fraction, uniform=self.variant == "paper"
        )  # (U, J, K, 4)
        classes = labels.classes[:, None].expand(-1, self.num_jitters, -1)
        refined = frcnn.refine_boxes(
            teacher, weak_features, copies.flatten(1, 2), classes.flatten(1), weak.size
        )
        spread, _ = box_spread(refined.view(batch, self.num_jitters, slots, 4), self.variant)
        return replace(labels, spread=spread), weak_features

    def select(self, labels: BoxLabels) -> dict[str, BoxLabels]:
        """What the RPN, the classifier and the regressor learn from."""
        return {
            "rpn": labels.score_above(self.rpn_min_score),
            "cls": labels.score_above(self.cls_min_score),
            "box": labels.spread_below(self.box_max_spread),
        }

    @torch.no_grad()
    def soften(
        self,
        targets: frcnn.RoITargets,
        teacher: nn.Module,
        weak_features: frcnn.Features,
        batch: SemiBatch,
    ) -> frcnn.RoITargets:
        """The targets with every background box weighted by how sure the teacher is of it (Eq. 4, 5)."""
        assert batch.weak is not None and batch.strong_to_weak is not None
        reliability = torch.ones_like(targets.class_weights)
        if self.reliability == "teacher_background":
            boxes = project_boxes(targets.boxes, batch.strong_to_weak, batch.weak.size)
            scores = frcnn.class_probabilities(teacher, weak_features, boxes)
            reliability = background_reliability(scores)
        weights, normaliser = soften_background(targets.positive, targets.used, reliability, self.variant)
        return replace(targets, class_weights=weights, class_normaliser=normaliser)

    @torch.no_grad()
    def pseudo_labels(
        self, student: nn.Module, teacher: nn.Module | None, batch: SemiBatch
    ) -> dict[str, Any]:
        """Candidates in both views and, for each branch, which of them it learns from."""
        assert teacher is not None and batch.weak is not None
        candidates, _ = self.label(teacher, batch.weak)
        labels = to_strong(candidates, batch, self.min_visible)
        masks = {name: chosen.valid for name, chosen in self.select(labels).items()}
        return {"weak": candidates, "strong": labels, "masks": masks}
