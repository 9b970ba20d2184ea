"""FixMatch: which boxes it takes against loops, what empty images do, who labels, what each option moves."""

import inspect
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import consistency, detectors
from torch import Tensor

from ssod.core.labels import BoxLabels
from ssod.core.selection import Selection
from ssod.errors import UserError
from ssod.methods import base
from ssod.models import frcnn
from ssod.models.student import evaluating
from ssod.models.views import SemiBatch

BASE = dict(unsup_weight=1.0, min_score=0.5)
UNSUP = {"unsup_loss_rpn_cls", "unsup_loss_rpn_bbox", "unsup_loss_cls", "unsup_loss_bbox"}


@pytest.fixture(scope="module")
def networks(registered: None) -> tuple[Any, Any, SemiBatch]:
    return detectors.student_and_teacher()


def method(**changes: Any) -> Any:
    return detectors.method("FixMatch", BASE | changes)


def run(networks: tuple[Any, Any, SemiBatch], **changes: Any) -> dict[str, Tensor]:
    """The losses and counts of one step, always with the same random numbers."""
    return detectors.one_step(method(**changes), networks)


# ---------------------------------------------------------------- the boxes it takes


def detections(seed: int, counts: list[int]) -> BoxLabels:
    """So many random detections in each image, some partly outside of it."""
    generator = torch.Generator().manual_seed(seed)
    boxes = [torch.rand(count, 4, generator=generator) * 150 - 25 for count in counts]
    boxes = [torch.cat([each[:, :2], each[:, :2] + each[:, 2:].abs()], dim=1) for each in boxes]
    return BoxLabels.pad(
        boxes,
        [torch.randint(8, (count,), generator=generator) for count in counts],
        [torch.rand(count, generator=generator) for count in counts],
    )


def strong_views(seed: int, images: int) -> SemiBatch:
    """A batch of random turns, shifts and scales; only its geometry means anything."""
    generator = torch.Generator().manual_seed(seed)
    turns = []
    for angle, shift, scale in torch.rand(images, 3, generator=generator).tolist():
        turn = detectors.turn(angle - 0.5, 60 * shift - 30)
        turn[:2, :2] *= 0.5 + scale
        turns.append(turn)
    size = torch.tensor([[96.0, 128.0], [70.0, 50.0], [128.0, 64.0]])[:images]
    view = detectors.View(images=torch.zeros(images, 3, 8, 8), size=size, padded=size)
    there = torch.stack(turns)
    return replace(
        detectors.semi_batch(), weak=view, strong=view, weak_to_strong=there, strong_to_weak=there.inverse()
    )


@settings(deadline=None, max_examples=20, derandomize=True)
@given(
    seed=st.integers(0, 2**16),
    counts=st.lists(st.sampled_from([0, 1, 3, 500]), min_size=1, max_size=3),
    min_score=st.sampled_from([0.0, 0.5, 0.9, 1.0]),
    min_visible=st.sampled_from([0.0, 0.3, 0.8]),
)
def test_the_boxes_it_takes_equal_loops(
    seed: int, counts: list[int], min_score: float, min_visible: float
) -> None:
    """Images without a detection, with one and with 500."""
    found, batch = detections(seed, counts), strong_views(seed, len(counts))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "detect", lambda _, view, floor: found.score_above(floor))
        selection = Selection.of(min_score)
        weak, strong = base.hard_labels(torch.nn.Identity(), selection, batch, min_visible)
    assert weak.boxes is found.boxes
    for image, count in enumerate(counts):
        mine = zip(*(getattr(found, name)[image, :count].tolist() for name in NAMES), strict=True)
        expected = consistency.hard_labels(
            list(mine),
            batch.weak_to_strong[image].tolist(),
            batch.strong.size[image].tolist(),
            min_score,
            min_visible,
        )
        valid = strong.valid[image]
        assert strong.classes[image, valid].tolist() == [label for _, label in expected]
        boxes = torch.tensor([box for box, _ in expected]).reshape(-1, 4)
        torch.testing.assert_close(strong.boxes[image, valid], boxes, rtol=1e-5, atol=1e-4)


NAMES = ("boxes", "classes", "scores")


# ---------------------------------------------------------------- images without a label


def only_first(labels: BoxLabels) -> BoxLabels:
    """The labels of the first image; the second one has none."""
    return labels.where(torch.tensor([[True], [False]]))


def unsup(losses: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in losses.items() if key in UNSUP}


@torch.no_grad()
def test_an_image_without_a_label_contributes_nothing(networks: tuple[Any, Any, SemiBatch]) -> None:
    """Image by image the losses add up to the whole: the normaliser is that of all images, as in Eq. 4."""
    student, _, batch = networks
    labels = only_first(detectors.truth((3, 4), of=batch.strong))
    assert labels.skip_empty().taught.tolist() == [True, False]
    first, second, every = (
        unsup(base.hard_label_losses(student, batch, replace(labels, taught=taught), 1.0))
        for taught in (labels.skip_empty().taught, torch.tensor([False, True]), None)
    )
    for key in UNSUP:
        torch.testing.assert_close(first[key] + second[key], every[key], msg=key)
        assert first[key] > 0 and (second[key] > 0) == ("cls" in key), key


def test_an_image_without_a_label_has_no_gradient(networks: tuple[Any, Any, SemiBatch]) -> None:
    student, _, batch = networks
    labels = only_first(detectors.truth((3, 4), of=batch.strong))
    for counted, taught in ((labels.skip_empty(), False), (labels, True)):
        images = batch.strong.images.clone().requires_grad_()
        watched = replace(batch, strong=replace(batch.strong, images=images))
        total = sum(unsup(base.hard_label_losses(student, watched, counted, 1.0)).values())
        (gradient,) = torch.autograd.grad(total, images)
        assert gradient[0].abs().max() > 0
        assert (gradient[1].abs().max() > 0) == taught


@torch.no_grad()
def test_no_label_at_all_is_no_loss(networks: tuple[Any, Any, SemiBatch]) -> None:
    losses = run(networks, min_score=1.0)
    assert losses["num_boxes_cls"] == 0
    assert [losses[key].item() for key in sorted(UNSUP)] == [0.0] * 4
    assert losses["sup_loss_cls"] > 0


# ---------------------------------------------------------------- who labels


@pytest.mark.parametrize("labeler", ["student", "teacher"])
@torch.no_grad()
def test_the_labels_are_the_labelers_detections(networks: tuple[Any, Any, SemiBatch], labeler: str) -> None:
    """Ordinary hard-label losses on what mmdet-equal `detect` finds, and no other network is asked."""
    student, teacher, batch = networks
    got = run(networks if labeler == "teacher" else (student, None, batch), labeler=labeler)
    network = student.eval() if labeler == "student" else teacher
    weak, _ = frcnn.detect(network, batch.weak, BASE["min_score"])
    student.train()
    labels = base.to_strong(weak, batch)
    torch.manual_seed(0)
    expected = base.hard_label_losses(student, batch, labels, 1.0)
    assert got["num_boxes_cls"] == labels.per_image() > 1
    for key, value in expected.items():
        torch.testing.assert_close(got[key], value, msg=key)


def norms(network: torch.nn.Module) -> Iterator[torch.nn.Module]:
    return (each for each in network.modules() if isinstance(each, torch.nn.BatchNorm2d))


def test_labelling_moves_no_statistic_and_no_mode(registered: None) -> None:
    """With trainable BatchNorm: as many updates as a supervised step has, the modes as they were."""
    model = detectors.semi_detector(dict(type="FixMatch") | BASE, trainable_norm=True)
    model.student.backbone.layer2.eval()  # a part that someone put to eval stays there
    modes = [each.training for each in model.student.modules()]
    batch = detectors.semi_batch()
    before = {name: each.clone() for name, each in model.student.named_buffers()}
    weak, _ = base.hard_labels(model.student, Selection.of(0.0), batch)
    assert weak.valid.any()
    assert all(each.equal(before[name]) for name, each in model.student.named_buffers())
    assert [each.training for each in model.student.modules()] == modes
    model.loss(batch)
    counts = {int(each.num_batches_tracked) for each in norms(model.student) if each.training}
    assert counts == {int(before["backbone.bn1.num_batches_tracked"]) + 1}


def test_modes_come_back_after_an_error(registered: None) -> None:
    network = torch.nn.Sequential(torch.nn.BatchNorm2d(3), torch.nn.Dropout()).train()
    with pytest.raises(RuntimeError, match="no"), evaluating(network):
        assert not any(each.training for each in network.modules())
        raise RuntimeError("no")
    assert all(each.training for each in network.modules())


def test_labels_carry_no_gradient(networks: tuple[Any, Any, SemiBatch]) -> None:
    student, _, batch = networks
    weak = batch.weak.images.clone().requires_grad_()
    watched = replace(batch, weak=replace(batch.weak, images=weak))
    total = sum(unsup(run((student, None, watched))).values())
    assert torch.autograd.grad(total, weak, allow_unused=True) == (None,)


def test_half_precision_weights_made_for_the_labels_are_not_trained_on(registered: None) -> None:
    """Older torch caches the weights that it cast without gradient (pytorch issue 65766)."""
    model = detectors.semi_detector(dict(type="FixMatch") | BASE)
    with torch.autocast("cpu", torch.bfloat16):
        losses = model.loss(detectors.semi_batch())
    sum(value for key, value in losses.items() if "loss" in key).backward()
    trained = {name: each.grad for name, each in model.student.named_parameters() if each.requires_grad}
    assert [name for name, each in trained.items() if each is None or not each.any()] == []


def test_an_average_is_only_needed_to_label(registered: None) -> None:
    detectors.semi_detector(dict(type="FixMatch"))
    with pytest.raises(UserError, match=r"FixMatch needs model\.teacher"):
        detectors.semi_detector(dict(type="FixMatch", labeler="teacher"))


def test_pseudo_labels_are_those_of_the_losses(networks: tuple[Any, Any, SemiBatch]) -> None:
    student, _, batch = networks
    labels = method().pseudo_labels(student, None, batch)
    assert labels["masks"]["labels"] is labels["strong"].valid
    assert labels["strong"].per_image() == run((student, None, batch))["num_boxes_cls"]


# ---------------------------------------------------------------- options

OPTIONS: list[tuple[str, Any, set[str]]] = [
    ("unsup_weight", 3.0, UNSUP),
    ("min_score", 0.7, UNSUP | {"num_boxes_cls", "unsup_acc"}),
    ("box_loss", False, {"unsup_loss_rpn_bbox", "unsup_loss_bbox"}),
    ("min_visible", 0.9, UNSUP | {"num_boxes_cls", "unsup_acc"}),
    ("labeler", "teacher", UNSUP | {"num_boxes_cls", "unsup_acc"}),
]


@pytest.mark.parametrize(("name", "value", "moves"), OPTIONS, ids=[row[0] for row in OPTIONS])
@torch.no_grad()
def test_an_option_moves_its_own_losses_and_no_other(
    networks: tuple[Any, Any, SemiBatch], name: str, value: Any, moves: set[str]
) -> None:
    before, after = run(networks), run(networks, **{name: value})
    assert all(before[key] > 0 for key in UNSUP)
    moved = {key for key in before if before[key].item() != pytest.approx(after[key].item(), rel=1e-4)}
    assert moved == moves
    if name == "box_loss":
        assert after["unsup_loss_bbox"] == after["unsup_loss_rpn_bbox"] == 0


def test_defaults(registered: None) -> None:
    from ssod.methods.fixmatch import FixMatch

    defaults = {name: each.default for name, each in inspect.signature(FixMatch).parameters.items()}
    assert list(defaults) == [row[0] for row in OPTIONS]
    assert defaults == dict(
        unsup_weight=1.0, min_score=0.9, box_loss=True, min_visible=0.0, labeler="student"
    )


WRONG: list[tuple[dict[str, Any], str]] = [
    (dict(labeler="file"), r"labeler 'file'; use 'student' or 'teacher' \(STAC takes labels from a file\)"),
    (dict(labeler="ema"), "labeler 'ema'; use 'student' or 'teacher'"),
    (dict(min_score=90), r"min_score is 90; a score lies in \[0, 1\]"),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_wrong_values_are_named_in_one_line(registered: None, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        method(**change)
    assert "\n" not in str(caught.value)
