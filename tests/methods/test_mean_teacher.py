"""Mean Teacher: against loops, through mmdet's own heads, where the gradient goes, what each option moves."""

import inspect
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import boxes as reference
from reference import consistency, detectors
from torch import Tensor

from ssod.core.geometry import box_sides
from ssod.core.losses import consistency_mse
from ssod.errors import UserError
from ssod.models import frcnn
from ssod.models.student import StudentPass
from ssod.models.views import SemiBatch

CLASS, BOX, RPN = "unsup_loss_cls", "unsup_loss_bbox", "unsup_loss_rpn_cls"
BASE = dict(unsup_weight=1.0, num_regions=40, floor=0.6, rpn_weight=1.0)


@pytest.fixture(scope="module")
def networks(registered: None) -> tuple[Any, Any, SemiBatch]:
    return detectors.student_and_teacher()


def method(**changes: Any) -> Any:
    return detectors.method("MeanTeacher", BASE | changes)


def run(networks: tuple[Any, Any, SemiBatch], **changes: Any) -> dict[str, Tensor]:
    """The losses and counts of one step, always with the same random numbers."""
    return detectors.one_step(method(**changes), networks)


# ---------------------------------------------------------------- mathematics


def region_outputs(seed: int, counts: list[int], classes: int) -> dict[str, Any]:
    """Logits, boxes and valid slots of images with so many regions; padding holds anything, even inf."""
    generator = torch.Generator().manual_seed(seed)
    images, slots = len(counts), max([1, *counts])
    valid = torch.arange(slots) < torch.tensor(counts)[:, None]
    logits = torch.randn(2, images, slots, classes, generator=generator) * 3
    corner = torch.rand(images, slots, 2, generator=generator) * 1333
    side = torch.rand(images, slots, 2, generator=generator).square() * 300  # some below a pixel
    teacher_boxes = torch.cat([corner, corner + side], dim=-1)
    student_boxes = teacher_boxes + torch.randn(teacher_boxes.shape, generator=generator) * 5
    student_boxes[~valid] = torch.inf
    return dict(logits=logits, teacher_boxes=teacher_boxes, student_boxes=student_boxes, valid=valid)


@settings(deadline=None, max_examples=20, derandomize=True)
@given(
    seed=st.integers(0, 2**16),
    counts=st.lists(st.sampled_from([0, 1, 2, 9, 500]), min_size=1, max_size=3),
    classes=st.integers(2, 9),
    floor=st.sampled_from([0.0, 0.5, 0.9, 1.0]),
)
def test_both_terms_equal_loops(seed: int, counts: list[int], classes: int, floor: float) -> None:
    """Images without a region, with one and with 500."""
    out = region_outputs(seed, counts, classes)
    student, teacher = out["logits"].softmax(dim=-1)
    sure = out["valid"] & (1 - teacher[..., -1] > floor)
    unit = box_sides(out["teacher_boxes"])
    got = (
        consistency_mse(student, teacher, out["valid"]),
        consistency_mse(out["student_boxes"], out["teacher_boxes"], sure, unit=unit),
    )
    expected = consistency.mean_teacher(
        *out["logits"].double().tolist(),
        out["student_boxes"].double().tolist(),
        out["teacher_boxes"].double().tolist(),
        out["teacher_boxes"].double()[:, :, None].tolist(),
        out["valid"].tolist(),
        floor,
    )
    assert [each.item() for each in got] == pytest.approx(list(expected), rel=1e-5, abs=1e-9)


def scored_by_mmdet(networks: tuple[Any, Any, SemiBatch]) -> dict[str, Any]:
    """Regions of each image scored and refined by mmdet's own RoI head, projected corner by corner."""
    from mmdet.structures.bbox import bbox2roi

    student, teacher, batch = networks
    found = StudentPass(student, strong=batch.strong).proposals("strong")
    pyramids = [frcnn.features(student, batch.strong.images), frcnn.features(teacher, batch.weak.images)]
    out: dict[str, list[Any]] = {"logits": [], "boxes": [], "wholes": [], "valid": []}
    for image in range(2):
        strong = found.boxes[image, found.valid[image]][: BASE["num_regions"]]
        back, there = batch.strong_to_weak[image].tolist(), batch.weak_to_strong[image].tolist()
        weak_size, strong_size = batch.weak.size[image].tolist(), batch.strong.size[image].tolist()
        weak = torch.tensor([reference.project(box, back, weak_size) for box in strong.tolist()])
        valid = ((weak[:, 2:] - weak[:, :2]) > 1e-2).all(dim=1)
        heads = []
        for network, pyramid, boxes in ((student, pyramids[0], strong), (teacher, pyramids[1], weak)):
            here = tuple(level[image : image + 1] for level in pyramid)
            heads.append(network.roi_head._bbox_forward(here, bbox2roi([boxes])))
        best = heads[1]["cls_score"][:, :-1].argmax(dim=1)
        refined = []
        for head, boxes in zip(heads, (strong, weak), strict=True):
            codes = head["bbox_pred"].view(len(boxes), -1, 4)[torch.arange(len(boxes)), best]
            refined.append(student.roi_head.bbox_head.bbox_coder.decode(boxes, codes).tolist())
        ours = [reference.clip(box, strong_size) for box in refined[0]]
        theirs = [reference.project(reference.clip(box, weak_size), there, strong_size) for box in refined[1]]
        out["logits"].append([head["cls_score"].tolist() for head in heads])
        out["boxes"].append((ours, theirs))
        wholes = zip((reference.hull(box, there) for box in refined[1]), strong.tolist(), strict=True)
        out["wholes"].append([list(pair) for pair in wholes])
        out["valid"].append(valid.tolist())
    return out


@torch.no_grad()
def test_losses_equal_loops_over_mmdets_heads(networks: tuple[Any, Any, SemiBatch]) -> None:
    out = scored_by_mmdet(networks)
    student, teacher = zip(*out["logits"], strict=True)
    ours, theirs = zip(*out["boxes"], strict=True)
    cls, box = consistency.mean_teacher(
        student, teacher, ours, theirs, out["wholes"], out["valid"], BASE["floor"]
    )
    got = run(networks)
    assert got["num_boxes_regions"] == sum(map(sum, out["valid"])) / 2 > got["num_boxes_box"] > 3
    assert got[CLASS].item() == pytest.approx(cls, rel=1e-4)
    assert got[BOX].item() == pytest.approx(box, rel=1e-4)


@torch.no_grad()
def test_objectness_is_that_of_the_anchor_that_overlaps_most(networks: tuple[Any, Any, SemiBatch]) -> None:
    student, _, batch = networks
    rpn = frcnn.rpn_forward(student, frcnn.features(student, batch.strong.images))
    boxes = detectors.near(detectors.truth((6, 6), of=batch.strong), count=40).boxes
    got = frcnn.objectness(rpn, boxes, chunk=7)
    anchors = rpn.anchors.tolist()
    for image, slot in ((0, 0), (0, 8), (1, 3), (1, 39)):
        overlaps = [reference.iou(boxes[image, slot].tolist(), anchor) for anchor in anchors]
        best = overlaps.index(max(overlaps))
        assert got[image, slot] == pytest.approx(rpn.logits[image, best].sigmoid().item(), rel=1e-5)


# ---------------------------------------------------------------- what must be 0, and what must not


def as_one(batch: SemiBatch) -> SemiBatch:
    """The batch with the strong view for the weak one, too."""
    same = torch.eye(3).repeat(2, 1, 1)
    return replace(batch, weak=batch.strong, weak_to_strong=same, strong_to_weak=same)


@torch.no_grad()
def test_equal_views_and_equal_weights_have_no_loss(networks: tuple[Any, Any, SemiBatch]) -> None:
    student, teacher, batch = networks
    twin = detectors.build(detectors.config(), 5).eval()
    twin.load_state_dict(student.state_dict())
    both = run((student, twin, as_one(batch)))
    assert both["num_boxes_box"] > 3
    assert max(both[key].item() for key in (CLASS, BOX, RPN)) < 1e-9
    other_view, other_weights = run((student, twin, batch)), run((student, teacher, as_one(batch)))
    for key in (CLASS, BOX, RPN):
        assert other_view[key] > 1e-4 and other_weights[key] > 1e-4


@pytest.mark.parametrize("term", [CLASS, BOX, RPN])
def test_the_gradient_reaches_the_student_through_the_strong_view(
    networks: tuple[Any, Any, SemiBatch], term: str
) -> None:
    """And nothing through the weak view, although no image of it is detached by hand."""
    student, teacher, batch = networks
    weak, strong, labeled = (
        view.images.clone().requires_grad_() for view in (batch.weak, batch.strong, batch.labeled)
    )
    watched = replace(
        batch,
        weak=replace(batch.weak, images=weak),
        strong=replace(batch.strong, images=strong),
        labeled=replace(batch.labeled, images=labeled),
    )
    loss = run((student, teacher, watched))[term]
    trained = {name: each for name, each in student.named_parameters() if each.requires_grad}
    gradients = torch.autograd.grad(loss, [weak, strong, labeled, *trained.values()], allow_unused=True)
    assert gradients[0] is None
    assert all(image.abs().max() > 0 for image in gradients[1])
    assert gradients[2].abs().max() == 0, "an unsupervised loss reads no labeled image"
    moved = {
        name for name, each in zip(trained, gradients[3:], strict=True) if each is not None and each.any()
    }
    head = {CLASS: "roi_head.bbox_head.fc_cls", BOX: "roi_head.bbox_head.fc_reg", RPN: "rpn_head.rpn_cls"}
    for name in (f"{head[term]}.weight", "neck.fpn_convs.0.conv.weight"):
        assert name in moved
    backbone = {name for name in trained if name.startswith("backbone.") and ".bn" not in name}
    assert backbone and backbone <= moved


def test_the_student_is_pulled_towards_the_teacher(networks: tuple[Any, Any, SemiBatch]) -> None:
    """Against the sign of the gradient all terms fall; the teacher, were it to move, has none."""
    _, teacher, batch = networks
    twin = detectors.build(detectors.config(), 0)
    before = run((twin, teacher, batch))
    total = before[CLASS] + before[BOX]
    total.backward()
    with torch.no_grad():
        for each in twin.parameters():
            if each.grad is not None:
                each -= 1e-4 * each.grad / each.grad.norm().clamp(min=1e-6)
        after = run((twin, teacher, batch))
    assert after[CLASS] + after[BOX] < total
    assert all(each.grad is None for each in teacher.parameters())


@torch.no_grad()
def test_the_sides_of_a_box_are_those_before_clipping(networks: tuple[Any, Any, SemiBatch]) -> None:
    """The strong view is the weak one moved 30 px to the right; the right edge is the weak view's own."""
    _, teacher, batch = networks
    shift = torch.eye(3).repeat(2, 1, 1)
    shift[:, 0, 2] = 30.0
    batch = replace(batch, weak_to_strong=shift, weak=replace(batch.weak, size=torch.full((2, 2), 96.0)))
    batch = replace(batch, strong=replace(batch.strong, size=torch.full((2, 2), 96.0)))
    boxes = torch.tensor([10.0, 20.0, 50.0, 40.0]) + torch.tensor([[[0.0], [55.5], [80.0]]]) * torch.tensor(
        [1.0, 0.0, 1.0, 0.0]
    )
    codes, classes = torch.zeros(2, 3, 4 * detectors.NUM_CLASSES), torch.zeros(2, 3).long()
    seen, sides = method().boxes_in_strong(teacher, boxes.expand(2, -1, -1), codes, classes, batch)
    torch.testing.assert_close(seen[0, :, 0::2], torch.tensor([[40.0, 80.0], [95.5, 96.0], [96.0, 96.0]]))
    torch.testing.assert_close(sides, torch.tensor([40.0, 20.0, 40.0, 20.0]).expand(2, 3, 4))


@pytest.mark.parametrize("shift", [0.0, 30.0, 60.0])
@torch.no_grad()
def test_a_sliver_weighs_no_more_than_a_whole_box(
    networks: tuple[Any, Any, SemiBatch], shift: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its corners are off by less than the sides of its region, whatever a view's edge has left of it."""
    from ssod.methods import mean_teacher

    terms: list[Tensor] = []

    def watched(first: Tensor, second: Tensor, valid: Tensor, unit: Tensor | None = None) -> Tensor:
        if unit is not None:
            terms.append(((first - second) / unit).square().mean(dim=-1)[valid])
        return consistency_mse(first, second, valid, unit)

    monkeypatch.setattr(mean_teacher, "consistency_mse", watched)
    student, teacher, batch = networks
    moved = torch.eye(3).repeat(2, 1, 1)
    moved[:, 0, 2] = shift
    run((student, teacher, replace(batch, weak_to_strong=moved, strong_to_weak=moved.inverse())), floor=0.2)
    assert len(terms[0]) > 3 and terms[0].max() < 1


# ---------------------------------------------------------------- options

OPTIONS: list[tuple[str, Any, set[str]]] = [
    ("unsup_weight", 3.0, {CLASS, BOX, RPN}),
    ("num_regions", 20, {CLASS, BOX, RPN, "num_boxes_regions", "num_boxes_box"}),
    ("box_weight", 0.5, {BOX}),
    ("floor", 0.9, {BOX, "num_boxes_box"}),
    ("rpn_weight", 0.5, {RPN}),
]


@pytest.mark.parametrize(("name", "value", "moves"), OPTIONS, ids=[row[0] for row in OPTIONS])
@torch.no_grad()
def test_an_option_moves_its_own_losses_and_no_other(
    networks: tuple[Any, Any, SemiBatch], name: str, value: Any, moves: set[str]
) -> None:
    before, after = run(networks), run(networks, **{name: value})
    assert all(before[key] > 0 for key in before if "loss" in key or key.startswith("num_boxes"))
    moved = {key for key in before if before[key].item() != pytest.approx(after[key].item(), rel=1e-4)}
    assert moved == moves


def test_no_option_is_left_out(registered: None) -> None:
    from ssod.methods.mean_teacher import MeanTeacher

    assert [row[0] for row in OPTIONS] == list(inspect.signature(MeanTeacher).parameters)


@torch.no_grad()
def test_regions_are_the_best_proposals_that_both_views_show(networks: tuple[Any, Any, SemiBatch]) -> None:
    """The strong view is the weak one moved 40 px to the left: its right edge is not in the weak one."""
    student, _, batch = networks
    shift = torch.eye(3).repeat(2, 1, 1)
    shift[:, 0, 2] = -40.0
    batch = replace(batch, weak_to_strong=shift, strong_to_weak=shift.inverse())
    joint = StudentPass(student, strong=batch.strong)
    every = joint.proposals("strong")
    strong, weak = method(num_regions=30).regions(joint, batch)
    assert strong.boxes.shape == weak.boxes.shape == (2, 30, 4)
    best = every.scores.sort(dim=1, descending=True).values[:, :30]
    torch.testing.assert_close(strong.scores, best, rtol=0, atol=0)
    right, bottom = batch.weak.size[:, 1:] - 1e-2, batch.weak.size[:, :1] - 1e-2
    shown = (strong.boxes[..., 0] + 40 < right) & (strong.boxes[..., 1] < bottom)
    assert strong.valid.equal(shown & every.valid[:, :30]) and weak.valid.equal(strong.valid)
    assert (~strong.valid).any() and strong.valid.any()


@torch.no_grad()
def test_without_objectness_there_is_no_such_loss(networks: tuple[Any, Any, SemiBatch]) -> None:
    assert RPN not in run(networks, rpn_weight=0.0)


WRONG: list[tuple[dict[str, Any], str]] = [
    (dict(num_regions=0), "num_regions is 0"),
    (dict(box_weight=-1.0), "box_weight is -1.0"),
    (dict(rpn_weight=-0.1), "rpn_weight is -0.1"),
    (dict(unsup_weight=dict(value=4.0, shape="cosine")), "cosine"),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_wrong_values_are_named_in_one_line(registered: None, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        method(**change)
    assert "\n" not in str(caught.value)
