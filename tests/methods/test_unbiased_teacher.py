"""Unbiased Teacher: hard labels of the teacher, classes only; its focal class loss against loops."""

import inspect
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import consistency, detectors
from torch import Tensor
from torch.nn import functional

from ssod.core.losses import focal_cross_entropy
from ssod.errors import UserError
from ssod.methods import base
from ssod.models import frcnn
from ssod.models.student import supervised_losses
from ssod.models.views import SemiBatch

BASE = dict(unsup_weight=1.0, min_score=0.5)
CLASS_LOSSES = {"unsup_loss_rpn_cls", "unsup_loss_cls"}
BOX_LOSSES = {"unsup_loss_rpn_bbox", "unsup_loss_bbox"}
FOCAL = dict(type="SoftmaxFocalLoss", gamma=1.5)


@pytest.fixture(scope="module")
def networks(registered: None) -> tuple[Any, Any, SemiBatch]:
    return detectors.student_and_teacher()


def method(**changes: Any) -> Any:
    return detectors.method("UnbiasedTeacher", BASE | changes)


def run(networks: tuple[Any, Any, SemiBatch], **changes: Any) -> dict[str, Tensor]:
    """The losses and counts of one step, always with the same random numbers."""
    return detectors.one_step(method(**changes), networks)


# ---------------------------------------------------------------- focal loss


@settings(deadline=None, max_examples=30, derandomize=True)
@given(
    seed=st.integers(0, 2**16),
    count=st.sampled_from([0, 1, 2, 500]),
    classes=st.integers(2, 9),
    gamma=st.sampled_from([0.0, 0.5, 1.5, 2.0]),
)
def test_focal_loss_equals_a_loop(seed: int, count: int, classes: int, gamma: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, classes, generator=generator) * 4
    labels = torch.randint(classes, (count,), generator=generator)
    got = focal_cross_entropy(logits, labels, gamma)
    rows = zip(logits.double().tolist(), labels.tolist(), strict=True)
    expected = torch.tensor([consistency.focal(*row, gamma) for row in rows])
    torch.testing.assert_close(got, expected.reshape(got.shape), rtol=1e-5, atol=1e-6)


def test_focal_loss_by_hand() -> None:
    """Two classes of equal logits: p = 1/2, so (1/2)^1.5 log 2. Surely right: 0, and so is its gradient."""
    logits = torch.tensor([[3.0, 3.0], [200.0, 0.0]], requires_grad=True)
    values = focal_cross_entropy(logits, torch.tensor([0, 0]), 1.5)
    torch.testing.assert_close(values, torch.tensor([0.5**1.5 * 0.693147, 0.0]))
    for gamma in (0.5, 1.5):
        total = focal_cross_entropy(logits, torch.tensor([0, 0]), gamma).sum()
        (gradient,) = torch.autograd.grad(total, logits)
        assert gradient.isfinite().all() and gradient[1].abs().max() == 0 and gradient[0, 0] < 0


def test_the_loss_speaks_mmdets_language(registered: None) -> None:
    """Weights, averaging and reductions as mmdet's CrossEntropyLoss has them; gamma 0 is that loss."""
    from mmdet.registry import MODELS

    ours = MODELS.build(dict(type="ssod.SoftmaxFocalLoss", gamma=0.0, loss_weight=0.5))
    theirs = MODELS.build(dict(type="CrossEntropyLoss", loss_weight=0.5))
    logits, labels = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 3, 3])
    for options in (
        dict(),
        dict(weight=torch.rand(6)),
        dict(weight=torch.rand(6), avg_factor=3.0),
        dict(reduction_override="none"),
        dict(reduction_override="sum"),
    ):
        torch.testing.assert_close(ours(logits, labels, **options), theirs(logits, labels, **options))


def test_the_head_takes_the_focal_loss_in_every_group(registered: None) -> None:
    """Supervised, burn-in and unsupervised class losses change, nothing else."""
    plain, focal = detectors.student_and_teacher(), detectors.student_and_teacher(FOCAL)
    focal[0].load_state_dict(plain[0].state_dict())
    focal[1].load_state_dict(plain[1].state_dict())
    before, after = run(plain), run(focal)
    moved = {key for key in before if before[key].item() != pytest.approx(after[key].item(), rel=1e-5)}
    assert moved == {"sup_loss_cls", "unsup_loss_cls"}
    burn_in = supervised_losses(focal[0], focal[2])
    torch.testing.assert_close(burn_in["loss_cls"], after["sup_loss_cls"])
    student, _, batch = focal
    pyramid = frcnn.features(student, batch.labeled.images)
    rpn = frcnn.rpn_forward(student, pyramid)
    found = frcnn.proposals(student, rpn, batch.labeled, student.train_cfg.rpn_proposal)
    targets = frcnn.sample_rois(student, found, batch.truth)
    [(logits, _)] = frcnn.roi_forward(student, pyramid, [(0, targets.boxes)])
    rows = zip(logits[targets.used].tolist(), targets.classes[targets.used].tolist(), strict=True)
    values = [consistency.focal(*row, 1.5) for row in rows]
    assert burn_in["loss_cls"].item() == pytest.approx(sum(values) / len(values), rel=1e-4)


# ---------------------------------------------------------------- the method


@torch.no_grad()
def test_hard_labels_of_the_teacher_classes_only(networks: tuple[Any, Any, SemiBatch]) -> None:
    student, teacher, batch = networks
    got = run(networks)
    weak, _ = frcnn.detect(teacher, batch.weak, 0.5)
    labels = base.to_strong(weak, batch)
    torch.manual_seed(0)
    expected = base.hard_label_losses(student, batch, labels, 1.0)
    assert got["num_boxes_cls"] == labels.per_image() > 1
    for key, value in expected.items():
        if key in BOX_LOSSES:
            assert value > 0 and got[key] == 0
        else:
            torch.testing.assert_close(got[key], value, msg=key)


@torch.no_grad()
def test_an_image_without_a_label_is_background(networks: tuple[Any, Any, SemiBatch]) -> None:
    """Unlike in FixMatch, as in the released code."""
    losses = run(networks, min_score=1.0)
    assert losses["num_boxes_cls"] == 0 and all(losses[key] > 0 for key in CLASS_LOSSES)


def test_burn_in_ends_with_a_copy(registered: None) -> None:
    """Until `start` the supervised losses alone; then teacher := student and its labels."""
    options = dict(type="UnbiasedTeacher", unsup_weight=dict(value=4.0, start=3), min_score=0.0)
    model = detectors.semi_detector(options, dict(type="EMATeacher"))
    batch = detectors.semi_batch()
    model.set_step(2)
    assert not any(key.startswith("unsup") for key in model.loss(batch))
    weight = "rpn_head.rpn_cls.weight"
    assert not model.teacher.get_parameter(weight).equal(model.student.get_parameter(weight))
    model.set_step(3)
    assert model.teacher.get_parameter(weight).equal(model.student.get_parameter(weight))
    assert model.loss(batch)["unsup_weight"] == 4


OPTIONS: list[tuple[str, Any, set[str]]] = [
    ("unsup_weight", 3.0, CLASS_LOSSES),
    ("min_score", 0.7, CLASS_LOSSES | {"num_boxes_cls", "unsup_acc"}),
    ("min_visible", 0.9, CLASS_LOSSES | {"num_boxes_cls", "unsup_acc"}),
]


@pytest.mark.parametrize(("name", "value", "moves"), OPTIONS, ids=[row[0] for row in OPTIONS])
@torch.no_grad()
def test_an_option_moves_its_own_losses_and_no_other(
    networks: tuple[Any, Any, SemiBatch], name: str, value: Any, moves: set[str]
) -> None:
    before, after = run(networks), run(networks, **{name: value})
    moved = {key for key in before if before[key].item() != pytest.approx(after[key].item(), rel=1e-4)}
    assert moved == moves


def test_the_defaults_are_the_published_ones(registered: None) -> None:
    from ssod.methods.unbiased_teacher import UnbiasedTeacher

    defaults = {name: each.default for name, each in inspect.signature(UnbiasedTeacher).parameters.items()}
    assert list(defaults) == [row[0] for row in OPTIONS]
    ramp = UnbiasedTeacher().unsup_weight
    assert (ramp(1_999), ramp(2_000), defaults["min_score"], defaults["min_visible"]) == (0, 4, 0.7, 0)


def test_wrong_values_are_named(registered: None) -> None:
    from ssod.registry import MODELS

    with pytest.raises(UserError, match=r"min_score is 1\.5; a score lies in \[0, 1\]"):
        method(min_score=1.5)
    with pytest.raises(UserError, match="gamma is -1; 0 is cross-entropy"):
        MODELS.build(dict(type="SoftmaxFocalLoss", gamma=-1))
    with pytest.raises(UserError, match=r"UnbiasedTeacher needs model\.teacher"):
        detectors.semi_detector(dict(type="UnbiasedTeacher"))


def test_pseudo_labels_are_those_of_the_losses(networks: tuple[Any, Any, SemiBatch]) -> None:
    labels = method().pseudo_labels(*networks)
    assert labels["masks"]["labels"] is labels["strong"].valid
    assert labels["strong"].per_image() == run(networks)["num_boxes_cls"]


def test_cross_entropy_is_gamma_0() -> None:
    logits, labels = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1])
    expected = functional.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(focal_cross_entropy(logits, labels, 0.0), expected)
