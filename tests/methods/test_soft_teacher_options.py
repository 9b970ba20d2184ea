"""Every option of Soft Teacher changes what it says it changes; the paper's variant in closed form."""

import inspect
from dataclasses import replace
from typing import Any

import pytest
import torch
from reference import boxes as reference
from reference import detectors
from torch import Tensor
from torch.nn import functional

from ssod.core.geometry import project_boxes
from ssod.core.labels import BoxLabels
from ssod.errors import UserError
from ssod.models import frcnn
from ssod.models.student import StudentPass
from ssod.models.views import SemiBatch

BASE = dict(unsup_weight=1.0, floor=0.3, rpn_min_score=0.5, cls_min_score=0.5, box_max_spread=0.1)
UNSUP = {"unsup_loss_rpn_cls", "unsup_loss_rpn_bbox", "unsup_loss_cls", "unsup_loss_bbox"}
RPN = {"unsup_loss_rpn_cls", "unsup_loss_rpn_bbox"}


@pytest.fixture(scope="module")
def networks(registered: None) -> tuple[Any, Any, SemiBatch]:
    """A student, a teacher that differs from it, a batch."""
    config = detectors.config()
    return detectors.build(config, 0), detectors.build(config, 1).eval(), detectors.semi_batch()


def method(**changes: Any) -> Any:
    from ssod.registry import METHODS

    return METHODS.build(dict(type="SoftTeacher") | BASE | changes)


def run(networks: tuple[Any, Any, SemiBatch], **changes: Any) -> dict[str, float]:
    """The losses and counts of one step, always with the same random numbers."""
    student, teacher, batch = networks
    chosen = method(**changes)
    torch.manual_seed(0)
    losses = chosen.losses(student, teacher, batch, chosen.unsup_weight(0))
    return {key: value.item() for key, value in losses.items()}


# The last column is all that moves: what the RPN learns is not the regressor's business, and so on.
OPTIONS: list[tuple[str, Any, set[str]]] = [
    ("unsup_weight", 3.0, UNSUP),
    ("floor", 0.45, {"num_boxes_candidates", "num_boxes_box", "unsup_loss_bbox"}),
    ("rpn_min_score", 0.7, {"num_boxes_rpn"} | RPN),
    ("cls_min_score", 0.7, {"num_boxes_cls", "unsup_loss_cls", "unsup_acc"}),
    ("box_max_spread", 0.05, {"num_boxes_box", "unsup_loss_bbox"}),
    ("num_jitters", 4, {"num_boxes_box", "unsup_loss_bbox"}),
    ("jitter_fraction", 0.3, {"num_boxes_box", "unsup_loss_bbox"}),
    ("min_visible", 0.9, UNSUP | {"num_boxes_rpn", "num_boxes_cls", "num_boxes_box", "unsup_acc"}),
    ("reliability", "none", {"unsup_loss_cls"}),
    ("variant", "paper", {"unsup_loss_cls", "num_boxes_box", "unsup_loss_bbox"}),
]


@pytest.mark.parametrize(("name", "value", "moves"), OPTIONS, ids=[row[0] for row in OPTIONS])
def test_an_option_moves_its_own_losses_and_no_other(
    networks: tuple[Any, Any, SemiBatch], name: str, value: Any, moves: set[str]
) -> None:
    before, after = run(networks), run(networks, **{name: value})
    assert all(before[key] > 0 for key in before if key.startswith("num_boxes"))
    moved = {key for key in before if before[key] != pytest.approx(after[key], rel=1e-4, abs=1e-6)}
    assert moved == moves


def test_no_option_is_left_out() -> None:
    from ssod.methods.soft_teacher import SoftTeacher

    assert [row[0] for row in OPTIONS] == list(inspect.signature(SoftTeacher).parameters)


def test_the_defaults_are_those_of_the_released_code() -> None:
    from ssod.methods.soft_teacher import SoftTeacher

    defaults = {name: each.default for name, each in inspect.signature(SoftTeacher).parameters.items()}
    assert defaults == dict(
        unsup_weight=4.0,
        floor=0.5,
        rpn_min_score=0.9,
        cls_min_score=0.9,
        box_max_spread=0.02,
        num_jitters=10,
        jitter_fraction=0.06,
        min_visible=0.0,
        reliability="teacher_background",
        variant="code",
    )


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("one jittered copy has no spread", dict(num_jitters=1), "num_jitters is 1"),
    ("unknown reliability", dict(reliability="iou"), "reliability 'iou'; use 'teacher_background' or 'none'"),
    ("unknown variant", dict(variant="both"), "variant 'both'; use 'code' or 'paper'"),
    ("a ramp that starts before 0", dict(unsup_weight=dict(value=4.0, start=-1)), "start"),
    ("a ramp of unknown shape", dict(unsup_weight=dict(value=4.0, shape="cosine")), "cosine"),
    ("a ramp with an unknown key", dict(unsup_weight=dict(value=4.0, burn_in=9)), "burn_in"),
]


@pytest.mark.parametrize(("change", "message"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_wrong_values_are_named_in_one_line(registered: None, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        method(**change)
    assert "\n" not in str(caught.value)


def test_unknown_options_fail(registered: None) -> None:
    with pytest.raises(TypeError, match="jitter_times"):
        method(jitter_times=10)


# ---------------------------------------------------------------- closed forms


def test_min_visible_counts_the_share_inside_the_strong_view() -> None:
    """A 20 px box shifted over the left border of the strong view keeps 20, 15, 5 and 0 of its 20 columns."""
    from ssod.methods.base import to_strong

    batch = detectors.semi_batch()
    shift = torch.eye(3).repeat(2, 1, 1)
    shift[:, 0, 2] = -30.0
    boxes = torch.tensor([[left, 10.0, left + 20, 30.0] for left in (30.0, 25.0, 15.0, 5.0)])
    labels = BoxLabels.pad([boxes] * 2, [torch.zeros(4).long()] * 2)
    batch = replace(batch, weak_to_strong=shift, strong_to_weak=shift.inverse())
    for bound, kept in ((0.0, 3), (0.25, 3), (0.3, 2), (0.75, 2), (0.8, 1), (1.0, 1)):
        strong = to_strong(labels, batch, bound)
        assert strong.valid.tolist() == [[True] * kept + [False] * (4 - kept)] * 2
        assert strong.boxes[0, :, 0].tolist() == [0, 0, 0, 0] and strong.boxes[0, :, 2].tolist() == [
            20,
            15,
            5,
            0,
        ]


def class_terms(networks: tuple[Any, Any, SemiBatch], labels: BoxLabels) -> tuple[Tensor, Tensor, Tensor]:
    """Of every sampled box of the strong view: loss, is it foreground, the teacher's background score.

    By mmdet's own RoI head, image by image, on the boxes that exhaustive sampling must find.
    """
    from mmdet.structures.bbox import bbox2roi

    student, teacher, batch = networks
    weak, strong = frcnn.features(teacher, batch.weak.images), frcnn.features(student, batch.strong.images)
    joint = StudentPass(student, strong=batch.strong)
    found = joint.proposals("strong")
    losses, foreground, background_scores = [], [], []
    for image in range(2):
        own = labels.boxes[image, labels.valid[image]]
        classes = labels.classes[image, labels.valid[image]].tolist()
        boxes = torch.cat([own, found.boxes[image, found.valid[image]]])
        matched = reference.assign(boxes.tolist(), own.tolist(), 0.5, 0.5, 0.5, False)
        target = torch.tensor([classes[each] if each >= 0 else detectors.NUM_CLASSES for each in matched])
        here = tuple(level[image : image + 1] for level in strong)
        logits = student.roi_head._bbox_forward(here, bbox2roi([boxes]))["cls_score"]
        losses.append(functional.cross_entropy(logits, target, reduction="none"))
        foreground.append(target < detectors.NUM_CLASSES)
        one = slice(image, image + 1)
        moved = project_boxes(boxes[None], batch.strong_to_weak[one], batch.weak.size[one])
        there = tuple(level[image : image + 1] for level in weak)
        scores = teacher.roi_head._bbox_forward(there, bbox2roi([moved[0]]))["cls_score"].softmax(dim=-1)
        background_scores.append(scores[:, -1])
    return torch.cat(losses), torch.cat(foreground), torch.cat(background_scores)


@pytest.mark.parametrize("reliability", ["teacher_background", "none"])
@pytest.mark.parametrize("variant", ["code", "paper"])
@torch.no_grad()
def test_class_loss_in_closed_form(
    networks: tuple[Any, Any, SemiBatch], variant: str, reliability: str
) -> None:
    """Paper, Eq. 4 and 5: a mean over the foreground plus one over the background by r_j. Code: one mean."""
    student, teacher, batch = networks
    labels = method().pseudo_labels(student, teacher, batch)
    chosen = labels["strong"].where(labels["masks"]["cls"])
    loss, foreground, score = class_terms(networks, chosen)
    assert foreground.sum() > 3 and (~foreground).sum() > 20
    if reliability == "none":
        score = torch.ones_like(score)  # "none" is r_j = 1
    if variant == "paper":
        background = (score * loss)[~foreground].sum() / score[~foreground].sum()
        expected = loss[foreground].mean() + background
    else:
        weight = torch.where(foreground, 1.0, score)
        expected = (weight * loss).sum() / weight.sum().clamp(min=1)
    actual = run(networks, variant=variant, reliability=reliability)["unsup_loss_cls"]
    assert actual == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("variant", ["code", "paper"])
@torch.no_grad()
def test_spread_in_closed_form(networks: tuple[Any, Any, SemiBatch], variant: str) -> None:
    """Jitter each candidate by the same random numbers, refine, and measure box by box."""
    _, teacher, batch = networks
    chosen = method(variant=variant, num_jitters=5)
    torch.manual_seed(3)
    labels, pyramid = chosen.label(teacher, batch.weak)
    torch.manual_seed(3)
    shape = (*labels.valid.shape[:1], 5, *labels.valid.shape[1:], 4)
    unit = torch.rand(shape) * 2 - 1 if variant == "paper" else torch.randn(shape)
    for image, slot in labels.valid.nonzero().tolist():
        box = labels.boxes[image, slot]
        side = (box[2:] - box[:2]).clamp(min=1).repeat(2)
        copies = box + 0.06 * side * unit[image, :, slot]
        refined = frcnn.refine_boxes(
            teacher,
            tuple(level[image : image + 1] for level in pyramid),
            copies[None],
            labels.classes[image, slot].expand(1, 5),
            batch.weak.size[image : image + 1],
        )
        expected = reference.spread(refined[0].tolist(), variant)
        assert labels.spread[image, slot].item() == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert labels.valid.sum() > 5
