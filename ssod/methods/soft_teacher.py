"""Soft Teacher (Xu et al. 2021, arXiv 2106.09018): soft background weights and box jittering."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ..core.geometry import project_boxes
from ..core.labels import BoxLabels
from ..core.reliability import Indicator, Variant, reliability_by, soften_background
from ..core.schedules import Ramp
from ..core.selection import Policy, Selection
from ..errors import UserError, check_choice
from ..models import frcnn
from ..models.jitter import BoxJitter
from ..models.student import StudentPass
from ..models.views import SemiBatch, View
from ..registry import METHODS
from .base import Method, named, supervised_group, to_strong


@METHODS.register_module()
class SoftTeacher(Method):
    """An EMA teacher labels the weak view; three selections decide what a label may teach on the strong one.

    unsup_weight: λ_u · floor: candidates' score · rpn_min_score, cls_min_score: what RPN and classifier learn
    from, a score or a Selection · box_selection: the regressor learns from candidates with a spread below
    `box_max_spread` ("spread", over `num_jitters` copies moved by `jitter_fraction` of their side) or above
    `box_min_score` ("score"; None: from what the classifier does) · min_visible: share of a box that the
    strong view must still show · reliability: the indicator r_j of section 3.2 or "none", 1 · variant: "code"
    (released) or "paper" where they differ: in jitter ("normal" or "uniform"), spread_norm and weights
    ("code" or "paper"), which can be set one by one · labeler: who labels; only "teacher" makes sense.
    """

    needs_teacher = True
    needs = frozenset({"two_stage"})

    def __init__(
        self,
        unsup_weight: float | dict[str, object] | Ramp = 4.0,
        floor: float = 0.5,
        rpn_min_score: Policy = 0.9,
        cls_min_score: Policy = 0.9,
        box_selection: Literal["spread", "score"] = "spread",
        box_max_spread: float = 0.02,
        box_min_score: Policy | None = None,
        num_jitters: int = 10,
        jitter_fraction: float = 0.06,
        min_visible: float = 0.0,
        labeler: Literal["teacher"] = "teacher",
        reliability: Indicator = "teacher_background",
        variant: Variant = "code",
        jitter: Literal["normal", "uniform"] | None = None,
        spread_norm: Variant | None = None,
        weights: Variant | None = None,
    ) -> None:
        super().__init__(unsup_weight)
        instead = "the method STAC learns from labels of a file, FixMatch from those of the student"
        check_choice("SoftTeacher", "labeler", labeler, ("teacher",), instead)
        check_choice("SoftTeacher", "box_selection", box_selection, ("spread", "score"))
        check_choice("SoftTeacher", "reliability", reliability, get_args(Indicator))
        check_choice("SoftTeacher", "variant", variant, get_args(Variant))
        check_choice("SoftTeacher", "weights", weights or variant, get_args(Variant))
        if box_min_score is not None and box_selection != "score":
            raise UserError("SoftTeacher: box_min_score is for box_selection='score'; set both or neither")
        self.floor, self.min_visible, self.box_max_spread = floor, min_visible, box_max_spread
        self.box_selection, self.reliability, self.weights = box_selection, reliability, weights or variant
        self.for_rpn, self.for_class = Selection.of(rpn_min_score), Selection.of(cls_min_score)
        self.for_box = None if box_min_score is None else Selection.of(box_min_score)
        jitter = jitter or ("uniform" if variant == "paper" else "normal")
        self.jitter = BoxJitter(num_jitters, jitter_fraction, jitter, spread_norm or variant)

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
        targets = frcnn.sample_rois(student, found, for_class)
        box_targets = targets if for_box is for_class else frcnn.sample_rois(student, found, for_box)
        groups = {
            "labeled": ("labeled", supervised_group(joint, batch.truth)),
            "class": ("strong", targets),
            "box": ("strong", box_targets.positives(frcnn.max_positives(student))),
        }
        outputs = joint.roi_outputs(groups)
        softened = self.soften(targets, outputs["class"][0], for_class, teacher, weak_features, batch)
        rois = joint.roi_losses(groups | {"class": ("strong", softened)}, outputs)

        sup = joint.rpn_losses("labeled", batch.truth) | rois["labeled"]
        unsup = joint.rpn_losses("strong", for_rpn) | rois["class"] | {"loss_bbox": rois["box"]["loss_bbox"]}
        counts = {"candidates": candidates, "rpn": for_rpn, "cls": for_class, "box": for_box}
        return named(sup, unsup, weight) | {
            f"num_boxes_{name}": each.per_image() for name, each in counts.items()
        }

    @torch.no_grad()
    def label(self, teacher: nn.Module, weak: View) -> tuple[BoxLabels, frcnn.Features]:
        """Candidates on the weak view, if need be with their spread, and the teacher's features."""
        labels, weak_features = frcnn.detect(teacher, weak, self.floor)
        if self.box_selection == "spread":
            labels = self.jitter.measure(teacher, weak_features, labels, weak)
        return labels, weak_features

    def select(self, labels: BoxLabels) -> dict[str, BoxLabels]:
        """What the RPN, the classifier and the regressor learn from."""
        chosen = {"rpn": self.for_rpn(labels), "cls": self.for_class(labels)}
        if self.box_selection == "spread":
            return chosen | {"box": labels.spread_below(self.box_max_spread)}
        return chosen | {"box": chosen["cls"] if self.for_box is None else self.for_box(labels)}

    @torch.no_grad()
    def soften(
        self,
        targets: frcnn.RoITargets,
        logits: Tensor,
        labels: BoxLabels,
        teacher: nn.Module,
        weak_features: frcnn.Features,
        batch: SemiBatch,
    ) -> frcnn.RoITargets:
        """The targets with background weighted by its reliability (Eq. 4, 5); logits: the student's."""
        assert batch.weak is not None and batch.strong_to_weak is not None
        teacher_scores = None
        if self.reliability in ("teacher_background", "score_difference"):
            boxes = project_boxes(targets.background_boxes, batch.strong_to_weak, batch.weak.size)
            teacher_scores = frcnn.class_probabilities(teacher, weak_features, boxes)
        r_j = reliability_by(self.reliability, targets.boxes, labels, logits.softmax(-1), teacher_scores)
        weights, normaliser = soften_background(targets.positive, targets.used, r_j, self.weights)
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
