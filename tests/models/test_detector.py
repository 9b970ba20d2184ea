"""SemiDetector: who trains, burn-in, no pseudo boxes, NaN; and mmdet's SoftTeacher beside it."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from reference import detectors
from torch import Tensor, nn

from ssod.core.geometry import project_boxes
from ssod.errors import UserError
from ssod.models import frcnn
from ssod.models.student import supervised_losses

EMA = dict(type="EMATeacher", decay=0.9)
SOFT = dict(type="SoftTeacher", floor=0.3, rpn_min_score=0.4, cls_min_score=0.4, box_max_spread=0.5)
SUPERVISED = {"sup_loss_rpn_cls", "sup_loss_rpn_bbox", "sup_loss_cls", "sup_loss_bbox", "sup_acc"}
COUNTS = {"num_boxes_candidates", "num_boxes_rpn", "num_boxes_cls", "num_boxes_box"}
ALL = SUPERVISED | {key.replace("sup_", "unsup_") for key in SUPERVISED} | COUNTS | {"unsup_weight"}


def soft(teacher: dict[str, Any] | None = None, **changes: Any) -> Any:
    options = {name: changes.pop(name) for name in ("seed", "trainable_norm") if name in changes}
    return detectors.semi_detector(SOFT | changes, teacher or EMA, **options)


def state(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def same(first: nn.Module, second: nn.Module) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(ours[name].equal(theirs[name]) for name in ours)


def total(losses: dict[str, Tensor]) -> Tensor:
    return sum((value for key, value in losses.items() if "loss" in key), start=torch.zeros(()))


def mmdet_soft_teacher(trainable_norm: bool) -> Any:
    """mmdet's own class around the same detector."""
    from mmdet.models.detectors import SoftTeacher
    from mmengine.config import ConfigDict

    model = SoftTeacher(
        detector=detectors.config(trainable_norm=trainable_norm),
        semi_train_cfg=ConfigDict(
            pseudo_label_initial_score_thr=0.999,
            rpn_pseudo_thr=0.999,
            cls_pseudo_thr=0.999,
            reg_pseudo_thr=0.02,
            jitter_times=10,
            jitter_scale=0.06,
            unsup_weight=4.0,
        ),
        semi_test_cfg=ConfigDict(predict_on="teacher"),
        data_preprocessor=dict(
            type="MultiBranchDataPreprocessor", data_preprocessor=dict(type="DetDataPreprocessor")
        ),
    )
    detectors.enliven(model.student)
    detectors.enliven(model.teacher)
    return model


# ---------------------------------------------------------------- the teacher only labels


def norms(network: nn.Module) -> Iterator[nn.Module]:
    return (module for module in network.modules() if isinstance(module, nn.BatchNorm2d))


def test_the_teacher_stays_in_eval_and_its_statistics_stand_still(registered: None) -> None:
    """HAZARDS row 5, with trainable BatchNorm."""
    model = soft(trainable_norm=True).train()
    assert not any(module.training for module in model.teacher.modules())
    assert all(module.training for module in norms(model.student))
    before, student = state(model.teacher), state(model.student)
    model.loss(detectors.semi_batch())
    assert all(tensor.equal(before[name]) for name, tensor in model.teacher.state_dict().items())
    moved = {name for name, tensor in model.student.state_dict().items() if not tensor.equal(student[name])}
    assert moved == {
        name for name, _ in model.student.named_buffers() if "running" in name or "batches" in name
    }


def test_mmdets_teacher_moves_in_a_labeling_pass(registered: None) -> None:
    """The base's behaviour that the test above must fail on: every BatchNorm statistic moves."""
    model, batch = mmdet_soft_teacher(trainable_norm=True), detectors.semi_batch()
    model.train()
    before = {name: buffer.clone() for name, buffer in model.teacher.named_buffers()}
    model.get_pseudo_instances(batch.weak.images, detectors.samples(batch.weak))
    moved = [name for name, buffer in model.teacher.named_buffers() if not buffer.equal(before[name])]
    assert len(moved) == len(before) == 3 * len(list(norms(model.teacher))) > 0


def test_the_teacher_has_no_gradient_and_every_student_weight_has_one(registered: None) -> None:
    model = soft()
    total(model.loss(detectors.semi_batch())).backward()
    assert all(each.grad is None and not each.requires_grad for each in model.teacher.parameters())
    trained = {name: each.grad for name, each in model.student.named_parameters() if each.requires_grad}
    assert trained and all(grad is not None and grad.abs().max() > 0 for grad in trained.values())


def test_the_checkpoint_holds_student_and_teacher_and_nothing_else(registered: None) -> None:
    keys = soft().state_dict().keys()
    assert {key.split(".")[0] for key in keys} == {"student", "teacher"}
    assert {key.split(".")[0] for key in detectors.semi_detector(None).state_dict()} == {"student"}


# ---------------------------------------------------------------- start, follow, burn-in


def test_start_makes_teacher_and_student_equal(registered: None) -> None:
    model = soft()
    assert not same(model.teacher, model.student)
    model.start()
    assert same(model.teacher, model.student)


def test_the_teacher_follows_in_closed_form(registered: None) -> None:
    """decay 0.9 with the ramp: min(0.9, 1 - 1 / (t + 1)) is 0.5 after step 1 and 0.9 after step 50."""
    model, name = soft(), "roi_head.bbox_head.fc_cls.weight"
    for step, decay in ((1, 0.5), (50, 0.9)):
        old, new = model.teacher.get_parameter(name).clone(), model.student.get_parameter(name)
        model.after_step(step)
        torch.testing.assert_close(model.teacher.get_parameter(name), decay * old + (1 - decay) * new)
    model.after_step(0)
    torch.testing.assert_close(model.teacher.get_parameter(name), new, rtol=0, atol=0)


def test_without_ramp_the_first_step_keeps_the_decay(registered: None) -> None:
    model, name = soft(EMA | dict(ramp=False)), "rpn_head.rpn_cls.weight"
    old, new = model.teacher.get_parameter(name).clone(), model.student.get_parameter(name)
    model.after_step(0)
    torch.testing.assert_close(model.teacher.get_parameter(name), 0.9 * old + 0.1 * new)


@pytest.mark.parametrize("buffers", ["copy", "average"])
def test_buffers_of_the_teacher(registered: None, buffers: str) -> None:
    model, name = soft(EMA | dict(buffers=buffers), trainable_norm=True), "backbone.bn1.running_mean"
    with torch.no_grad():
        model.student.get_buffer(name).fill_(1.0)
        model.teacher.get_buffer(name).fill_(0.0)
    model.after_step(100)
    expected = 1.0 if buffers == "copy" else 0.1
    torch.testing.assert_close(model.teacher.get_buffer(name), torch.full((32,), expected))


def test_burn_in_is_supervised_and_ends_with_a_copy(registered: None) -> None:
    model, batch = soft(unsup_weight=dict(value=4.0, start=3)), detectors.semi_batch()
    assert model.burn_in == 3
    expected = supervised_losses(model.student, batch)
    for step in (0, 2):
        model.set_step(step)
        losses = model.loss(batch)
        assert model.step == step and losses.keys() == SUPERVISED
        for key, value in expected.items():
            torch.testing.assert_close(losses[f"sup_{key}"], value)
        assert not same(model.teacher, model.student)
    model.set_step(3)
    assert same(model.teacher, model.student)
    losses = model.loss(batch)
    assert losses.keys() == ALL and losses["unsup_weight"] == 4.0
    with torch.no_grad():
        model.student.rpn_head.rpn_cls.weight.add_(1.0)
    model.set_step(4)
    assert not same(model.teacher, model.student)  # copied once, not at every step


def test_a_frozen_teacher_never_changes(registered: None) -> None:
    """Its weights come from a checkpoint: neither start, nor a step, nor the end of burn-in touches them."""
    model = soft(dict(type="FrozenTeacher"), unsup_weight=dict(value=4.0, start=3))
    before = state(model.teacher)
    model.start()
    for step in range(5):
        model.set_step(step)
        model.after_step(step)
        assert all(tensor.equal(before[name]) for name, tensor in model.teacher.state_dict().items()), step


def test_the_weight_scales_the_unsupervised_losses_alone(registered: None) -> None:
    model = soft(unsup_weight=dict(value=2.0, length=10))
    batch = detectors.semi_batch()
    found = {}
    for step in (4, 8):
        model.set_step(step)
        torch.manual_seed(0)
        found[step] = model.loss(batch)
    assert found[4].keys() == ALL
    assert [found[step]["unsup_weight"].item() for step in (4, 8)] == pytest.approx([0.8, 1.6])
    for key in ALL - {"unsup_weight"}:
        factor = 2.0 if key.startswith("unsup_loss") else 1.0
        torch.testing.assert_close(found[8][key], found[4][key] * factor, rtol=1e-4, atol=1e-6, msg=key)


# ---------------------------------------------------------------- supervised


def test_no_method_is_mmdets_detector(registered: None) -> None:
    model, batch = detectors.semi_detector(None), detectors.semi_batch()
    assert model.teacher is None and model.which == ("student",)
    ours = model.loss(batch)
    theirs = model.student.loss(batch.labeled.images, detectors.samples(batch.labeled, batch.truth))
    assert ours.keys() == SUPERVISED
    for key, value in ours.items():
        expected = theirs[key.removeprefix("sup_")]
        expected = sum(expected) if isinstance(expected, list) else expected.reshape(())
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6, msg=key)
    parsed, _ = model.parse_losses(ours)
    torch.testing.assert_close(parsed, total(ours))


# ---------------------------------------------------------------- nothing to learn from, and NaN


def test_no_pseudo_box_is_an_ordinary_step(registered: None) -> None:
    """The same keys, finite values, and a gradient for every trainable weight (DDP waits for each)."""
    batch = detectors.semi_batch()
    with_boxes = soft().loss(batch)
    assert all(with_boxes[key] > 0 for key in COUNTS)
    model = soft(floor=0.9999)
    losses = model.loss(batch)
    assert losses.keys() == with_boxes.keys() == ALL
    assert all(losses[key] == 0 for key in (*COUNTS, "unsup_loss_bbox", "unsup_loss_rpn_bbox"))
    assert all(value.isfinite() for value in losses.values())
    assert losses["unsup_loss_cls"] > 0  # background still teaches
    unsupervised = sum(value for key, value in losses.items() if key.startswith("unsup_loss"))
    unsupervised.backward()
    for name, parameter in model.student.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def poison(network: nn.Module) -> None:
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(torch.nan)


def test_a_nan_student_gets_a_complete_loss_dict(registered: None) -> None:
    """HAZARDS row 7: the keys of a healthy step and a NaN loss, which the finite guard can name."""
    model, batch = soft(floor=0.9999), detectors.semi_batch()
    poison(model.student)
    losses = model.loss(batch)
    assert losses.keys() == ALL
    assert total(losses).isnan()


def test_mmdets_nan_student_is_a_key_error(registered: None) -> None:
    """The base's behaviour that the test above must fail on."""
    model, batch = mmdet_soft_teacher(trainable_norm=False), detectors.semi_batch()
    poison(model.student)
    inputs = {
        "sup": batch.labeled.images,
        "unsup_teacher": batch.weak.images,
        "unsup_student": batch.strong.images,
    }
    data = {
        "sup": detectors.samples(batch.labeled, batch.truth),
        "unsup_teacher": detectors.samples(batch.weak),
        "unsup_student": detectors.samples(batch.strong),
    }
    with pytest.raises(KeyError, match="loss_cls"):
        model.loss(inputs, data)


# ---------------------------------------------------------------- pseudo labels, predictions


def test_pseudo_labels_are_what_the_method_teaches(registered: None) -> None:
    model, batch = soft(), detectors.semi_batch()
    found = model.pseudo_labels(batch)
    weak, strong, masks = found["weak"], found["strong"], found["masks"]
    assert weak.valid.sum() > 5 and set(masks) == {"rpn", "cls", "box"}
    expected = project_boxes(weak.boxes, batch.weak_to_strong, batch.strong.size)
    torch.testing.assert_close(strong.boxes, expected)
    sides = (expected[..., 2:] - expected[..., :2]).amin(dim=-1)
    assert strong.valid.equal(weak.valid & (sides > 1e-2))
    assert masks["rpn"].equal(strong.valid & (weak.scores > SOFT["rpn_min_score"]))
    assert masks["cls"].equal(strong.valid & (weak.scores > SOFT["cls_min_score"]))
    assert masks["box"].equal(strong.valid & (weak.spread < SOFT["box_max_spread"]))
    assert detectors.semi_detector(None).pseudo_labels(batch) is None


def test_predict_is_mmdets_predict_of_the_network_asked_for(registered: None) -> None:
    model, view = soft().eval(), detectors.view()
    assert model.which == ("teacher", "student")
    found = {}
    with torch.no_grad():
        for which, network in ((None, model.teacher), ("teacher", model.teacher), ("student", model.student)):
            ours = model.predict(view.images, detectors.samples(view), which)
            theirs = network.predict(view.images, detectors.samples(view))
            for one, other in zip(ours, theirs, strict=True):
                assert len(one.pred_instances) > 0
                for key in ("bboxes", "scores", "labels"):
                    assert one.pred_instances[key].equal(other.pred_instances[key])
            found[which] = ours[0].pred_instances.scores
    assert not found["teacher"].equal(found["student"])
    mode = model(view.images, detectors.samples(view), mode="predict")
    assert mode[0].pred_instances.scores.equal(found["teacher"])


def test_asking_for_a_network_that_is_not_there(registered: None) -> None:
    model, view = detectors.semi_detector(None), detectors.view()
    with pytest.raises(UserError, match="no teacher in this model, only student"):
        model.predict(view.images, detectors.samples(view), which="teacher")


# ---------------------------------------------------------------- what is refused


def refused(message: str, **model: Any) -> None:
    from ssod.registry import MODELS

    with pytest.raises(UserError, match=message) as caught:
        MODELS.build(dict(type="SemiDetector", data_preprocessor=dict(type="SemiPreprocessor")) | model)
    assert "\n" not in str(caught.value)


def test_a_method_without_the_teacher_it_needs(registered: None) -> None:
    refused("SoftTeacher needs .*EMATeacher", detector=detectors.config(), method=SOFT)


TEACHERS: list[tuple[str, dict[str, Any]]] = [
    ("decay", dict(type="EMATeacher", decay=1.5)),
    ("decay is a share in .* got '0.9'", dict(type="EMATeacher", decay="0.9")),
    ("buffers", dict(type="EMATeacher", buffers="skip")),
]


@pytest.mark.parametrize(("message", "teacher"), TEACHERS, ids=[row[0] for row in TEACHERS])
def test_wrong_options_of_a_teacher(registered: None, message: str, teacher: dict[str, Any]) -> None:
    refused(message, detector=detectors.config(), method=SOFT, teacher=teacher)


def test_teacher_in_half_precision(registered: None) -> None:
    """teacher_dtype rounds what the teacher's layers say, to 8 bits; nothing of the student or of tests."""
    plain, half = (
        detectors.semi_detector(None, EMA, model=dict(teacher_dtype=dtype)).eval()
        for dtype in ("float32", "bfloat16")
    )
    look = detectors.view()
    exact, rounded = (frcnn.features(each.teacher, look.images) for each in (plain, half))
    for level, rough in zip(exact, rounded, strict=True):
        assert rough.dtype == torch.float32
        assert not rough.equal(level)
        assert (rough - level).norm() < 0.03 * level.norm()
    boxes = detectors.truth().boxes
    heads = [
        (rpn.logits, rpn.deltas, *frcnn.roi_forward(each.teacher, exact, [(0, boxes)])[0])
        for each in (plain, half)
        for rpn in [frcnn.rpn_forward(each.teacher, exact)]
    ]
    for value, rough in zip(*heads, strict=True):
        assert rough.dtype == torch.float32 and not rough.equal(value)
        assert (rough - value).norm() < 0.03 * value.norm()
    for level, same_level in zip(exact, half.extract_feat(look.images), strict=True):
        assert same_level.equal(level)
    theirs = frcnn.features(plain.student, look.images)
    for level, same_level in zip(theirs, frcnn.features(half.student, look.images), strict=True):
        assert same_level.equal(level)


def test_teacher_dtype_names_what_it_needs(registered: None) -> None:
    with pytest.raises(UserError, match=r"needs model\.teacher"):
        detectors.semi_detector(None, model=dict(teacher_dtype="bfloat16"))
    with pytest.raises(UserError, match="'bfloat8'; use 'float32'"):
        detectors.semi_detector(None, EMA, model=dict(teacher_dtype="bfloat8"))
