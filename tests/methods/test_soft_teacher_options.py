"""Every option of Soft Teacher changes what it says it changes; the paper's variant in closed form."""

import inspect
from dataclasses import replace
from typing import Any, get_args

import pytest
import torch
from reference import boxes as reference
from reference import detectors, pseudo_labels
from torch import Tensor
from torch.nn import functional

from ssod.core.geometry import project_boxes
from ssod.core.labels import BoxLabels
from ssod.core.reliability import Indicator
from ssod.errors import UserError
from ssod.methods.base import hard_label_losses, to_strong
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
BOX = {"num_boxes_box", "unsup_loss_bbox"}
CLASS = {"num_boxes_cls", "unsup_loss_cls", "unsup_acc"}
ADAPTIVE = dict(type="ClassAdaptive", num_classes=detectors.NUM_CLASSES, min_score=0.5, lowest=0.35)
OPTIONS: list[tuple[str, Any, set[str]]] = [
    ("unsup_weight", 3.0, UNSUP),
    ("floor", 0.45, {"num_boxes_candidates"} | BOX),
    ("rpn_min_score", 0.7, {"num_boxes_rpn"} | RPN),
    ("rpn_min_score", ADAPTIVE, {"num_boxes_rpn"} | RPN),
    ("rpn_min_score", dict(type="IgnoreBand", low=0.3, high=0.5), RPN),
    ("cls_min_score", 0.7, CLASS),
    ("cls_min_score", ADAPTIVE, CLASS),
    ("cls_min_score", dict(type="IgnoreBand", low=0.3, high=0.5), {"unsup_loss_cls", "unsup_acc"}),
    ("box_selection", "score", BOX),
    ("box_max_spread", 0.05, BOX),
    ("num_jitters", 4, BOX),
    ("jitter_fraction", 0.3, BOX),
    ("min_visible", 0.9, UNSUP | {"num_boxes_rpn", "num_boxes_cls", "num_boxes_box", "unsup_acc"}),
    ("reliability", "student_background", {"unsup_loss_cls"}),
    ("reliability", "score_difference", {"unsup_loss_cls"}),
    ("reliability", "iou", {"unsup_loss_cls"}),
    ("reliability", "reverse_iou", {"unsup_loss_cls"}),
    ("reliability", "none", {"unsup_loss_cls"}),
    ("variant", "paper", {"unsup_loss_cls"} | BOX),
    ("jitter", "uniform", BOX),
    ("spread_norm", "paper", BOX),
    ("weights", "paper", {"unsup_loss_cls"}),
]
ELSEWHERE = ["box_min_score", "labeler"]  # the one needs another option, the other has but one value


@pytest.mark.parametrize(("name", "value", "moves"), OPTIONS, ids=[f"{row[0]}={row[1]}" for row in OPTIONS])
def test_an_option_moves_its_own_losses_and_no_other(
    networks: tuple[Any, Any, SemiBatch], name: str, value: Any, moves: set[str]
) -> None:
    before, after = run(networks), run(networks, **{name: value})
    assert all(before[key] > 0 for key in before if key.startswith("num_boxes"))
    moved = {key for key in before if before[key] != pytest.approx(after[key], rel=1e-4, abs=1e-6)}
    assert moved == moves


def test_no_option_is_left_out() -> None:
    from ssod.methods.soft_teacher import SoftTeacher

    tested = [*(row[0] for row in OPTIONS), *ELSEWHERE]
    assert sorted(set(tested)) == sorted(inspect.signature(SoftTeacher).parameters)


def test_box_min_score_moves_what_the_regressor_learns(networks: tuple[Any, Any, SemiBatch]) -> None:
    """By score the regressor learns from the classifier's boxes, unless it has a bound of its own."""
    before = run(networks, box_selection="score")
    assert before["num_boxes_box"] == before["num_boxes_cls"]
    after = run(networks, box_selection="score", box_min_score=0.8)
    assert after["num_boxes_box"] < before["num_boxes_box"]
    moved = {key for key in before if before[key] != pytest.approx(after[key], rel=1e-4, abs=1e-6)}
    assert moved == BOX
    band = run(networks, box_selection="score", box_min_score=dict(type="IgnoreBand", low=0.3, high=0.8))
    assert {key for key in after if after[key] != pytest.approx(band[key], rel=1e-4)} == {"unsup_loss_bbox"}


def test_parts_of_the_variant_make_the_variant(networks: tuple[Any, Any, SemiBatch]) -> None:
    """variant="paper" is nothing but the three options, and each of them overrules it."""
    paper = dict(jitter="uniform", spread_norm="paper", weights="paper")
    code = dict(jitter="normal", spread_norm="code", weights="code")
    assert run(networks, **paper) == run(networks, variant="paper")
    assert run(networks, variant="paper", **code) == run(networks)


def test_the_defaults_are_those_of_the_released_code() -> None:
    from ssod.methods.soft_teacher import SoftTeacher

    defaults = {name: each.default for name, each in inspect.signature(SoftTeacher).parameters.items()}
    assert defaults == dict(
        unsup_weight=4.0,
        floor=0.5,
        rpn_min_score=0.9,
        cls_min_score=0.9,
        box_selection="spread",
        box_max_spread=0.02,
        box_min_score=None,
        num_jitters=10,
        jitter_fraction=0.06,
        min_visible=0.0,
        labeler="teacher",
        reliability="teacher_background",
        variant="code",
        jitter=None,
        spread_norm=None,
        weights=None,
    )


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("one jittered copy has no spread", dict(num_jitters=1), "num_jitters is 1"),
    (
        "unknown reliability",
        dict(reliability="entropy"),
        "'entropy'; use 'teacher_background' or .* or 'reverse_iou' or 'none'",
    ),
    ("labels from a file", dict(labeler="file"), r"labeler 'file'; use 'teacher' \(.* STAC .* file"),
    ("its own labels", dict(labeler="student"), r"labeler 'student'; use 'teacher' \(.* FixMatch .* student"),
    ("unknown box selection", dict(box_selection="iou"), "box_selection 'iou'; use 'spread' or 'score'"),
    ("a bound that nothing reads", dict(box_min_score=0.8), "box_min_score is for box_selection='score'"),
    ("unknown jitter", dict(jitter="cauchy"), "jitter 'cauchy'; use 'normal' or 'uniform'"),
    ("unknown norm", dict(spread_norm="area"), "spread_norm 'area'; use 'code' or 'paper'"),
    ("unknown weights", dict(weights="ours"), "weights 'ours'; use 'code' or 'paper'"),
    ("unknown policy", dict(cls_min_score=dict(type="TopK")), "selection 'TopK' is unknown"),
    ("option of a policy", dict(rpn_min_score=dict(type="IgnoreBand", low=0.9)), "IgnoreBand.*high"),
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


def class_terms(
    networks: tuple[Any, Any, SemiBatch], labels: BoxLabels, reliability: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Of every sampled box of the strong view: loss, is it foreground, its reliability as background.

    By mmdet's own RoI head, image by image, on the boxes that exhaustive sampling must find.
    """
    from mmdet.structures.bbox import bbox2roi

    student, teacher, batch = networks
    weak, strong = frcnn.features(teacher, batch.weak.images), frcnn.features(student, batch.strong.images)
    joint = StudentPass(student, strong=batch.strong)
    found = joint.proposals("strong")
    losses, foreground, reliabilities = [], [], []
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
        rows = zip(boxes.tolist(), logits.softmax(dim=-1).tolist(), scores.tolist(), strict=True)
        reliabilities += [
            pseudo_labels.reliability(reliability, box, own.tolist(), by_student, by_teacher)
            for box, by_student, by_teacher in rows
        ]
    return torch.cat(losses), torch.cat(foreground), torch.tensor(reliabilities)


@pytest.mark.parametrize("reliability", get_args(Indicator))
@pytest.mark.parametrize("variant", ["code", "paper"])
@torch.no_grad()
def test_class_loss_in_closed_form(
    networks: tuple[Any, Any, SemiBatch], variant: str, reliability: str
) -> None:
    """Paper, Eq. 4 and 5: a mean over the foreground plus one over the background by r_j. Code: one mean."""
    student, teacher, batch = networks
    labels = method().pseudo_labels(student, teacher, batch)
    chosen = labels["strong"].where(labels["masks"]["cls"])
    loss, foreground, score = class_terms(networks, chosen, reliability)
    assert foreground.sum() > 3 and (~foreground).sum() > 20
    if variant == "paper":
        background = (score * loss)[~foreground].sum() / score[~foreground].sum()
        expected = loss[foreground].mean() + background
    else:
        weight = torch.where(foreground, 1.0, score)
        expected = (weight * loss).sum() / weight.sum().clamp(min=1)
    actual = run(networks, variant=variant, reliability=reliability)["unsup_loss_cls"]
    assert actual == pytest.approx(expected.item(), rel=1e-4)


# ---------------------------------------------------------------- the rungs of the ladder


def test_without_softness_and_jitter_it_is_the_teachers_hard_labels(
    networks: tuple[Any, Any, SemiBatch],
) -> None:
    """The rung "E2E + EMA": the same losses and gradients. Where boxes are drawn, the draws are others."""
    student, teacher, batch = networks
    chosen = method(reliability="none", box_selection="score")
    ours = chosen.losses(student, teacher, batch, 2.0)
    candidates, _ = frcnn.detect(teacher, batch.weak, BASE["floor"])
    labels = to_strong(candidates, batch).score_above(BASE["cls_min_score"])
    expected = hard_label_losses(student, batch, labels, 2.0)
    assert labels.valid.sum() > 5
    assert set(expected) == {key for key in ours if not key.startswith("num_boxes")}
    for key, value in expected.items():
        torch.testing.assert_close(ours[key], value, rtol=1e-5, atol=1e-6, msg=key)
    detectors.assert_same_gradients(student, total(ours), total(expected))


def total(losses: dict[str, Tensor]) -> Tensor:
    """The sum of what is learned from."""
    return torch.stack([value for key, value in losses.items() if "loss" in key]).sum()


def test_by_score_nothing_is_jittered(
    networks: tuple[Any, Any, SemiBatch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssod.models.jitter.jitter_boxes", None)
    _, teacher, batch = networks
    labels, _ = method(box_selection="score").label(teacher, batch.weak)
    assert labels.valid.any() and labels.spread is None
    with pytest.raises(TypeError):
        method().label(teacher, batch.weak)


@pytest.mark.parametrize(
    ("reliability", "passes"),
    [
        ("teacher_background", 1),
        ("score_difference", 1),
        ("student_background", 0),
        ("iou", 0),
        ("reverse_iou", 0),
        ("none", 0),
    ],
)
def test_the_teacher_scores_boxes_only_for_who_asks(
    networks: tuple[Any, Any, SemiBatch], reliability: str, passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond finding the candidates; the student's scores come with its one head call."""
    student, teacher, _ = networks
    calls = {"student": 0, "teacher": 0}

    def counted(name: str, forward: Any) -> Any:
        def call(*args: Any) -> Any:
            calls[name] += 1
            return forward(*args)

        return call

    for name, network in (("student", student), ("teacher", teacher)):
        head = network.roi_head.bbox_head
        monkeypatch.setattr(head, "forward", counted(name, head.forward))
    run(networks, reliability=reliability, box_selection="score")
    assert calls == {"student": 1, "teacher": 1 + passes}


@pytest.mark.parametrize("reliability", get_args(Indicator))
def test_no_gradient_flows_through_a_weight(
    networks: tuple[Any, Any, SemiBatch], reliability: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    original = frcnn.roi_losses

    def spy(detector: Any, logits: Tensor, codes: Tensor, targets: frcnn.RoITargets) -> Any:
        seen.append(targets)
        return original(detector, logits, codes, targets)

    monkeypatch.setattr(frcnn, "roi_losses", spy)
    run(networks, reliability=reliability)
    assert len(seen) == 3
    assert not any(each.class_weights.requires_grad or each.class_normaliser.requires_grad for each in seen)


# ---------------------------------------------------------------- policies inside the method


def test_a_policy_is_saved_with_the_model_and_learns_in_training_only(registered: None) -> None:
    spec = dict(type="SoftTeacher") | BASE | dict(cls_min_score=ADAPTIVE, rpn_min_score=ADAPTIVE)
    model = detectors.semi_detector(spec, dict(type="EMATeacher"))
    batch = detectors.semi_batch()
    model.loss(batch)
    counts = model.method.for_class.counts.clone()
    assert counts.sum() > 0 and model.method.for_rpn.counts.equal(counts)
    saved = {key: value.clone() for key, value in model.state_dict().items()}
    assert saved["method.for_class.counts"].equal(counts)
    model.eval()
    model.pseudo_labels(batch)
    assert model.method.for_class.counts.equal(counts)
    again = detectors.semi_detector(spec, dict(type="EMATeacher"), seed=5)
    again.load_state_dict(saved)
    assert again.method.for_class.thresholds().equal(model.method.for_class.thresholds())


@pytest.mark.parametrize("policy", [ADAPTIVE, dict(type="IgnoreBand", low=0.4, high=0.5)], ids=str)
@pytest.mark.parametrize("empty", [False, True], ids=["some boxes", "no boxes"])
def test_policies_train_under_bf16(registered: None, policy: Any, empty: bool) -> None:
    spec = dict(type="SoftTeacher") | BASE | dict(cls_min_score=policy, rpn_min_score=policy)
    spec |= dict(box_selection="score", reliability="score_difference", floor=1.1 if empty else BASE["floor"])
    model = detectors.semi_detector(spec, dict(type="EMATeacher"))
    with torch.autocast("cpu", torch.bfloat16):
        losses = model.loss(detectors.semi_batch())
    assert all(torch.isfinite(value).all() for value in losses.values())
    assert (losses["num_boxes_candidates"] == 0) == empty
    total(losses).backward()
    learning = [each for each in model.student.parameters() if each.requires_grad]
    assert all(each.grad is not None and each.grad.isfinite().all() for each in learning)


def test_what_an_ignored_box_covers_is_not_background(networks: tuple[Any, Any, SemiBatch]) -> None:
    """Of the boxes that are sampled without a band, exactly the background near the band's boxes is gone."""
    student, teacher, batch = networks
    chosen = method(cls_min_score=dict(type="IgnoreBand", low=0.3, high=0.6))
    labels = chosen.select(to_strong(chosen.label(teacher, batch.weak)[0], batch))["cls"]
    assert labels.valid.any() and labels.ignored.any()
    found = StudentPass(student, strong=batch.strong).proposals("strong")
    with_band = frcnn.sample_rois(student, found, labels)
    without = frcnn.sample_rois(student, found, replace(labels, ignored=None))
    for image in range(2):
        kept = {tuple(box) for box in with_band.boxes[image, with_band.used[image]].tolist()}
        band = labels.boxes[image, labels.ignored[image]].tolist()
        used = without.used[image]
        expected = {
            tuple(box)
            for box, positive in zip(
                without.boxes[image, used].tolist(), without.positive[image, used].tolist(), strict=True
            )
            if positive or not any(reference.iou(box, each) >= 0.5 for each in band)
        }
        assert kept == expected and len(kept) < int(used.sum())


# ---------------------------------------------------------------- the teacher's average


def test_decay_moves_what_the_teacher_labels(registered: None) -> None:
    """One step of the average, the student's weights being other ones: the slower teacher stays behind."""
    found = {}
    for decay in (0.5, 0.99):
        spec = dict(type="SoftTeacher") | BASE
        model = detectors.semi_detector(spec, dict(type="EMATeacher", decay=decay, ramp=False))
        model.after_step(0)
        torch.manual_seed(0)
        found[decay] = model.loss(detectors.semi_batch())
    changed = {key for key in found[0.5] if not torch.isclose(found[0.5][key], found[0.99][key])}
    assert "unsup_loss_cls" in changed and not any(key.startswith("sup_") for key in changed)
