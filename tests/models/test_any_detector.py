"""Any mmdet detector: its own losses and predictions on our values, who may train it, and two steps of it."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from reference import detectors, small_detectors
from torch import Tensor

from ssod.core.labels import BoxLabels
from ssod.core.selection import Selection
from ssod.errors import UserError
from ssod.methods.base import Method, hard_label_losses, to_strong
from ssod.models import any_detector, supported
from ssod.models.student import detect, detection_losses, supervised_losses
from ssod.models.supported import check_detector, check_method, two_stage_fault
from ssod.models.views import SemiBatch, View
from ssod.registry import METHODS, MODELS

pytestmark = pytest.mark.usefixtures("registered")

OWN = ["cascade_rcnn", "dino", "fcos", "retinanet"]  # frcnn.py computes none of these
SOFT = dict(type="SoftTeacher")
EMA = dict(type="EMATeacher")


class SelfLabels(Method):
    """The shortest hard-label method: the student's own boxes on the weak view, above `floor`."""

    def __init__(self, floor: float = 0.0, box_loss: bool = True, start: int = 0) -> None:
        super().__init__(dict(value=1.0, start=start))
        self.floor = floor
        self.box_loss = box_loss

    def losses(self, student: Any, teacher: Any, batch: SemiBatch, weight: float) -> dict[str, Tensor]:
        assert batch.weak is not None
        labels = to_strong(detect(student, batch.weak, self.floor), batch)
        return hard_label_losses(student, batch, labels, weight, self.box_loss)


def config(name: str) -> Any:
    return small_detectors.config(name, detectors.NUM_CLASSES)


def own(name: str) -> Any:
    """A small mmdet detector in train mode that knows the classes of `detectors.truth`."""
    return small_detectors.build(name, detectors.NUM_CLASSES).train()


def semi(detector: Any, method: Any = None, teacher: Any = None) -> Any:
    torch.manual_seed(0)
    model = MODELS.build(
        dict(
            type="SemiDetector",
            detector=detector,
            method=method,
            teacher=teacher,
            data_preprocessor=dict(type="SemiPreprocessor", pad_size_divisor=32),
        )
    )
    model.init_weights()  # parts of DINO are bare memory before
    return model


def parsed(detector: Any, losses: Mapping[str, Any]) -> dict[str, Tensor]:
    """mmengine's own sums over levels."""
    return dict(detector.parse_losses(losses)[1])


def total(losses: Mapping[str, Tensor]) -> Tensor:
    return torch.stack([value for key, value in losses.items() if "loss" in key]).sum()


def assert_close(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], tolerance: float = 1e-6) -> None:
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        torch.testing.assert_close(value, theirs[key], rtol=tolerance, atol=tolerance, msg=key)


def no_boxes(view: View) -> BoxLabels:
    labels = detectors.truth(of=view)
    return labels.where(torch.zeros_like(labels.valid))


# ---------------------------------------------------------------- losses


@pytest.mark.parametrize("name", OWN)
def test_losses_are_mmdets(name: str) -> None:
    """Value by value and in the gradient: `detector.loss` on data samples that the test makes."""
    detector, view, labels = own(name), detectors.view(), detectors.truth()
    torch.manual_seed(1)  # Cascade R-CNN's samplers, DINO's noise
    ours = any_detector.losses(detector, view, labels)
    torch.manual_seed(1)
    theirs = parsed(detector, detector.loss(view.images, detectors.samples(view, labels)))
    overall = theirs.pop("loss")
    assert_close(ours, theirs)
    assert all(value.shape == () for value in ours.values())
    detectors.assert_same_gradients(detector, total(ours), overall)


def test_both_paths_agree_where_both_exist() -> None:
    """Faster R-CNN with samplers that take every box: one joint pass of ours, or mmdet view by view."""
    detector, batch = detectors.build(detectors.config()), detectors.semi_batch()
    assert two_stage_fault(detector) is None and batch.strong is not None
    views = {
        "labeled": (batch.labeled, batch.truth),
        "strong": (batch.strong, detectors.truth((3, 5), seed=9, of=batch.strong)),
    }
    ours = detection_losses(detector, views)
    for name, (view, labels) in views.items():
        assert_close(ours[name], any_detector.losses(detector, view, labels), tolerance=1e-5)


@pytest.mark.parametrize("name", OWN)
def test_an_image_that_teaches_nothing_is_as_if_it_were_not_there(name: str) -> None:
    detector, view, labels = own(name), detectors.view(), detectors.truth()
    torch.manual_seed(2)
    ours = any_detector.losses(detector, view, replace(labels, taught=torch.tensor([False, True])))
    torch.manual_seed(2)
    alone = detector.loss(view.images[1:], detectors.samples(view, labels)[1:])
    theirs = parsed(detector, alone)
    del theirs["loss"]
    # Two stages divide by the sampled boxes, of which the other image has as many; the rest by positives.
    counted = [key for key in theirs if name == "cascade_rcnn" and "loss" in key]
    assert_close(ours, theirs | {key: theirs[key] / 2 for key in counted})
    assert len(counted) == (8 if name == "cascade_rcnn" else 0), "RPN and three stages, boxes and classes"


def test_both_paths_count_the_images_that_teach_nothing() -> None:
    """FixMatch's μB. All positives are sampled, and every box has the same class loss: nothing is chance."""
    cfg = detectors.config()
    for stage, num in (("rpn", 256), ("rcnn", 64)):
        cfg.train_cfg[stage].sampler.num = num
    detector, view = detectors.build(cfg), detectors.view(((96, 128),) * 4)
    for layer in (detector.rpn_head.rpn_cls, detector.roi_head.bbox_head.fc_cls):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    labels = detectors.truth((4, 0, 0, 0), of=view).skip_empty()
    ours = detection_losses(detector, {"strong": (view, labels)})["strong"]
    theirs = any_detector.losses(detector, view, labels)
    # An image without positives counts one for them, in an RPN.
    rpn = {key: 256 * 4 / (256 + 3 * 257) if "rpn" in key else 1.0 for key in ours if "loss" in key}
    assert_close({key: ours[key] for key in rpn}, {key: theirs[key] * one for key, one in rpn.items()}, 1e-5)
    torch.testing.assert_close(theirs["loss_cls"], torch.tensor(9.0).log() / 4)


def test_sparse_heads_divide_by_positives() -> None:
    """A second stage that takes all boxes, as Sparse R-CNN's: PseudoSampler."""
    from mmdet.models.task_modules import PseudoSampler

    detector = own("cascade_rcnn")
    assert any_detector._counts_samples(detector, "s2.loss_cls")
    detector.roi_head.bbox_sampler = [PseudoSampler() for _ in range(3)]
    assert not any_detector._counts_samples(detector, "s2.loss_cls")
    assert any_detector._counts_samples(detector, "loss_rpn_bbox")


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("taught", [None, torch.zeros(2, dtype=torch.bool)], ids=["empty", "left out"])
def test_without_boxes_the_keys_stay_and_every_weight_has_a_gradient(name: str, taught: Any) -> None:
    """DDP waits for every trainable weight; a log wants the same keys."""
    detector, view = own(name), detectors.view()
    keys = any_detector.losses(detector, view, detectors.truth()).keys()
    losses = any_detector.losses(detector, view, replace(no_boxes(view), taught=taught))
    assert losses.keys() == keys
    assert all(value.isfinite() for value in losses.values())
    if taught is not None:
        assert all(value == 0 for value in losses.values())
    total(losses).backward()
    missing = [key for key, each in detector.named_parameters() if each.requires_grad and each.grad is None]
    assert not missing


@pytest.mark.parametrize("name", OWN)
def test_supervised_training_of_any_detector(name: str) -> None:
    """method=None: what the labeled images alone teach, under the names of every other twin."""
    model, batch = semi(config(name)).train(), detectors.semi_batch()
    torch.manual_seed(3)
    ours = model.loss(batch)
    torch.manual_seed(3)
    expected = any_detector.losses(model.student, batch.labeled, batch.truth)
    assert_close(ours, {f"sup_{key}": value for key, value in expected.items()})


# key of mmdet -> whether it is about where a box lies
TERMS = {
    "loss_cls": False,
    "loss_bbox": True,
    "loss_centerness": True,
    "loss_rpn_cls": False,
    "loss_rpn_bbox": True,
    "s1.loss_cls": False,
    "s1.loss_bbox": True,
    "d0.dn_loss_iou": True,
    "enc_loss_cls": False,
    "loss_dfl": True,
    "loss_obj": False,
    "loss_conf": False,
    "loss_center_heatmap": False,
    "loss_wh": True,
    "loss_offset": True,
    "loss_l1": True,
    "loss_carl": True,
    "loss_ld": True,
    "loss_anchor_loc": True,
    "tl_loss_centripetal_shift": True,
    "acc": False,
}


@pytest.mark.parametrize(("key", "about_boxes"), TERMS.items())
def test_which_terms_are_about_boxes(key: str, about_boxes: bool) -> None:
    assert any_detector.is_box_term(key) == about_boxes


@pytest.mark.parametrize("name", ["retinanet", "fcos"])
def test_box_loss_false_leaves_the_classification(name: str) -> None:
    detector, batch = own(name), detectors.semi_batch()
    assert batch.strong is not None
    labels = detectors.truth(of=batch.strong, seed=4)
    whole = hard_label_losses(detector, batch, labels, weight=2.0)
    classes = hard_label_losses(detector, batch, labels, weight=2.0, box_loss=False)
    boxes = {"unsup_loss_bbox"} | ({"unsup_loss_centerness"} if name == "fcos" else set())
    assert all(whole[key] > 0 and classes[key] == 0 for key in boxes)
    assert_close({**classes, **{key: whole[key] for key in boxes}}, whole)
    strong = any_detector.losses(detector, batch.strong, labels)
    torch.testing.assert_close(whole["unsup_loss_cls"], 2 * strong["loss_cls"])


# ---------------------------------------------------------------- detections


@pytest.mark.parametrize("name", OWN)
def test_detections_are_mmdets_above_the_floor(name: str) -> None:
    detector, view = own(name).eval(), detectors.view()
    with torch.no_grad():
        found = detector.predict(view.images, detectors.samples(view), rescale=False)
    expected = [each.pred_instances for each in found]
    floor = torch.cat([each.scores for each in expected]).median().item()
    labels = detect(detector, view, floor)
    assert labels.valid.sum() > 0
    for image, each in enumerate(expected):
        above, valid = each.scores > floor, labels.valid[image]
        assert labels.boxes[image, valid].equal(each.bboxes[above])
        assert labels.scores[image, valid].equal(each.scores[above])
        assert labels.classes[image, valid].equal(each.labels[above])
    assert not detect(detector, view, 1.0).valid.any()


def test_a_student_in_training_labels_as_in_testing() -> None:
    """FCOS with norm_on_bbox decodes without the stride while it trains; trainable BatchNorm would move."""
    changed = config("fcos")
    changed.bbox_head.norm_on_bbox = True
    changed.backbone.update(norm_eval=False, norm_cfg=dict(type="BN", requires_grad=True))
    student, view = semi(changed).student, detectors.view()
    student.backbone.conv1.eval()  # a mode that train() alone would not give back
    modes = [module.training for module in student.modules()]
    before = {key: value.clone() for key, value in student.state_dict().items()}
    ours = detect(student, view, 0.0)
    assert [module.training for module in student.modules()] == modes and any(modes)
    assert all(value.equal(before[key]) for key, value in student.state_dict().items())
    theirs = detect(student.eval(), view, 0.0)
    assert ours.boxes.equal(theirs.boxes) and ours.scores.equal(theirs.scores)


def test_an_error_while_labeling_leaves_the_student_in_training(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = own("retinanet")
    monkeypatch.setattr(detector, "extract_feat", lambda images: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        detect(detector, detectors.view(), 0.0)
    assert detector.training and detector.bbox_head.training


@pytest.mark.parametrize("name", ["retinanet", "cascade_rcnn"])
def test_a_bound_of_the_detector_above_the_methods_is_refused(name: str) -> None:
    detector, view = own(name), detectors.view()
    test = detector.test_cfg.get("rcnn") or detector.test_cfg
    test.score_thr = 0.5
    with pytest.raises(UserError, match=r"score_thr=0.5 in its test_cfg .*0\.3 or less") as caught:
        detect(detector, view, 0.3)
    assert "\n" not in str(caught.value)
    detect(detector, view, 0.5)


# ---------------------------------------------------------------- who works with whom


def message(method: Any, detector: Any) -> str:
    with pytest.raises(UserError) as caught:
        semi(detector, method, EMA)
    assert "\n" not in str(caught.value)
    return str(caught.value)


LACKING = {
    "retinanet": "detector RetinaNet has no rpn_head",
    "fcos": "detector FCOS has no rpn_head",
    "cascade_rcnn": "detector CascadeRCNN has CascadeRoIHead in the place of StandardRoIHead",
    "dino": "detector DINO has no rpn_head",
}


@pytest.mark.parametrize(("name", "lacking"), LACKING.items())
def test_a_method_that_needs_two_stages_says_what_is_lacking_and_what_works(name: str, lacking: str) -> None:
    said = message(SOFT, config(name))
    assert said.startswith(f"method SoftTeacher needs the two stages of Faster R-CNN, but {lacking}; ")
    assert "FasterRCNN and MaskRCNN" in said and said.endswith("method=None")
    others = [name for name, kind in METHODS.module_dict.items() if not kind.needs]
    assert all(other in said for other in others) and "with SoftTeacher" not in said


def test_a_need_that_no_detector_can_meet_is_a_mistake() -> None:
    class Wishful(SelfLabels):
        needs = frozenset({"region_scores"})

    with pytest.raises(UserError, match="Wishful needs region_scores, which is not known: use 'two_stage'"):
        check_method(Wishful(), own("retinanet"))


class Choosy(SelfLabels):
    def __init__(self, selection: Any) -> None:
        super().__init__()
        self.selection = Selection.of(selection)


def test_an_ignore_band_needs_the_assignment_of_two_stages() -> None:
    band = dict(type="IgnoreBand", low=0.5, high=0.9)
    check_method(Choosy(band), own("faster_rcnn"))
    with pytest.raises(UserError, match="method Choosy with IgnoreBand needs the two stages of Faster R-CNN"):
        check_method(Choosy(band), own("retinanet"))


@pytest.mark.parametrize("name", ["faster_rcnn", "cascade_rcnn", "retinanet"])
def test_thresholds_of_classes_are_as_many_as_the_detector_has(name: str) -> None:
    detector = own(name)
    num = supported._num_classes(detector)
    check_method(Choosy(dict(type="ClassAdaptive", num_classes=num)), detector)
    with pytest.raises(UserError, match=f"num_classes={num + 1}, the detector has {num}: write that"):
        check_method(Choosy(dict(type="ClassAdaptive", num_classes=num + 1)), detector)


@pytest.mark.parametrize("method", [SOFT, dict(type=SelfLabels)])
def test_mask_rcnn_works_with_its_boxes_only(method: Any) -> None:
    with pytest.warns(UserWarning, match="MaskRCNN: its mask_head is left out, .* boxes only"):
        model = semi(config("mask_rcnn"), method, EMA)
    for network in (model.student, model.teacher):
        assert two_stage_fault(network) is None
        assert not any("mask" in name for name, _ in network.named_parameters())
    view = detectors.view()
    [first, _] = model.eval().predict(view.images, detectors.samples(view))
    assert len(first.pred_instances) > 0 and "masks" not in first.pred_instances


def test_the_mask_branch_does_not_change_what_the_boxes_learn() -> None:
    """Box losses of mmdet's Mask R-CNN with its mask branch, and ours without, at the same weights."""
    whole = detectors.enliven(own("mask_rcnn"))
    with pytest.warns(UserWarning, match="left out"):
        boxes = semi(config("mask_rcnn")).student.train()
    boxes.load_state_dict(whole.state_dict(), strict=False)
    for detector in (whole, boxes):
        for stage in (detector.rpn_head.sampler, detector.roi_head.bbox_sampler):
            stage.num, stage.pos_fraction = 10**6, 1.0
    view = detectors.view(((96, 128), (96, 128)))  # no padding, where all scores are the same
    labels = detectors.truth(of=view)
    whole.roi_head.mask_loss = lambda *parts: {"loss_mask": {}}  # there are no masks to compare with
    ours = detection_losses(boxes, {"labeled": (view, labels)})["labeled"]
    assert_close(ours, any_detector.losses(whole, view, labels), tolerance=1e-5)


def test_what_boxes_alone_cannot_train_is_refused() -> None:
    with pytest.raises(UserError, match=r"MaskRCNN learns from masks, .*use a box detector"):
        check_detector(own("mask_rcnn"))
    changed = config("faster_rcnn")
    changed.type = "FastRCNN"
    del changed.rpn_head
    with pytest.raises(UserError, match="FastRCNN reads proposals from a file"):
        semi(changed)
    staged = own("retinanet")
    staged.bbox_head.initial_epoch = 4  # as TOOD's head has it
    with pytest.raises(UserError, match=r"RetinaNet changes its assignment at an epoch \(initial_epoch\)"):
        check_detector(staged)


# ---------------------------------------------------------------- training


@pytest.mark.parametrize("name", [*OWN, "mask_rcnn"])
@pytest.mark.filterwarnings("ignore:detector MaskRCNN")
def test_two_steps_of_a_hard_label_method(name: str) -> None:
    model = semi(config(name), dict(type=SelfLabels), EMA)
    model.start()
    optimizer = torch.optim.SGD(model.student.parameters(), lr=1e-3)
    before = {key: each.detach().clone() for key, each in model.student.named_parameters()}
    keys = []
    for step in range(2):
        model.train()
        model.set_step(step)
        losses = model.loss(detectors.semi_batch(seed=step))
        assert all(value.isfinite() for value in losses.values())
        optimizer.zero_grad()
        total(losses).backward()
        torch.nn.utils.clip_grad_norm_(model.student.parameters(), 10.0)
        optimizer.step()
        model.after_step(step)
        keys.append(losses.keys())
    assert keys[0] == keys[1]
    unsup = {key.removeprefix("unsup_") for key in keys[0] if key.startswith("unsup_loss")}
    assert unsup == {key.removeprefix("sup_") for key in keys[0] if key.startswith("sup_loss")} and unsup
    heads = [key for key in before if "head" in key and key.endswith("weight")]
    assert heads and all(not model.student.get_parameter(key).equal(before[key]) for key in heads)


@pytest.mark.parametrize("name", ["cascade_rcnn", "faster_rcnn", "fcos", "retinanet"])
def test_self_labeling_under_bfloat16_leaves_every_weight_its_gradient(name: str) -> None:
    model = semi(config(name), dict(type=SelfLabels)).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model.loss(detectors.semi_batch())
    total(losses).backward()
    trained = {key: each.grad for key, each in model.student.named_parameters() if each.requires_grad}
    assert all(grad is not None and grad.isfinite().all() for grad in trained.values())


@pytest.mark.parametrize("name", ["retinanet", "cascade_rcnn"])
def test_a_checkpoint_brings_the_predictions_back(name: str) -> None:
    view, first, second = detectors.view(), semi(config(name), teacher=EMA), semi(config(name), teacher=EMA)
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.01)
    second.load_state_dict(first.state_dict())
    for which in ("teacher", "student"):
        ours, theirs = (
            model.eval().predict(view.images, detectors.samples(view), which)[0].pred_instances
            for model in (first, second)
        )
        assert len(ours) > 0 and ours.bboxes.equal(theirs.bboxes) and ours.scores.equal(theirs.scores)


def test_burn_in_of_any_detector_is_its_supervised_training() -> None:
    batch = detectors.semi_batch()
    model = semi(config("retinanet"), dict(type=SelfLabels, start=3), EMA).train()
    model.set_step(0)
    losses = model.loss(batch)
    expected = supervised_losses(model.student, batch)
    assert_close(losses, {f"sup_{key}": value for key, value in expected.items()})


# ---------------------------------------------------------------- docs/detectors.md

PAGE = Path(__file__).parents[2] / "docs/detectors.md"


def table() -> tuple[list[str], dict[str, list[str]]]:
    """The header's cells and {detector: cells} of the page's table."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return rows[0][1:], {row[0].strip("`"): row[1:] for row in rows[2:]}


@pytest.mark.filterwarnings("ignore:detector MaskRCNN")
@pytest.mark.parametrize("name", sorted(small_detectors.DETECTORS))
def test_each_cell_of_the_page_builds_or_is_refused_for_the_reason_it_says(name: str) -> None:
    _, rows = table()
    assert {small_detectors.config(each).type for each in small_detectors.DETECTORS} == rows.keys()
    cells = rows[config(name).type]
    for cell, method in zip(cells, (None, dict(type=SelfLabels), SOFT), strict=True):
        if cell.startswith("no: "):
            assert f"{cell.removeprefix('no: ')};" in message(method, config(name))
        else:
            assert cell == ("yes, boxes only" if name == "mask_rcnn" else "yes")
            semi(config(name), method, EMA)


def test_the_page_names_every_method_where_its_needs_put_it() -> None:
    (_, hard, regions), _ = table()
    ours = {name: kind for name, kind in METHODS.module_dict.items() if kind.__module__.startswith("ssod.")}
    assert "SoftTeacher" in ours
    for name, kind in ours.items():
        assert f"`{name}`" in (regions if kind.needs else hard)
