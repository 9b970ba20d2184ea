"""The joint pass over [labeled ; strong] equals one pass for each, in losses and in gradients."""

from typing import Any

import pytest
import torch
from reference import detectors
from torch import Tensor

from ssod.core.labels import BoxLabels
from ssod.models import frcnn
from ssod.models.student import StudentPass, supervised_losses
from ssod.models.views import SemiBatch


@pytest.fixture(scope="module")
def detector(registered: None) -> Any:
    """Frozen BatchNorm, exhaustive samplers."""
    return detectors.build(detectors.config())


def strong_labels(batch: SemiBatch) -> BoxLabels:
    return detectors.truth((3, 5), seed=9, of=batch.strong)


def losses(detector: Any, student: StudentPass, name: str, labels: BoxLabels) -> dict[str, Tensor]:
    """All losses of one of a pass's views."""
    targets = frcnn.sample_rois(detector, student.proposals(name), labels)
    return student.rpn_losses(name, labels) | student.roi_losses({name: (name, targets)})[name]


def test_one_pass_equals_two(detector: Any) -> None:
    batch = detectors.semi_batch()
    assert batch.strong is not None
    labels = {"labeled": batch.truth, "strong": strong_labels(batch)}
    views = {"labeled": batch.labeled, "strong": batch.strong}
    joint = StudentPass(detector, **views)
    targets = {name: frcnn.sample_rois(detector, joint.proposals(name), labels[name]) for name in views}
    rois = joint.roi_losses({name: (name, targets[name]) for name in views})
    together = {name: joint.rpn_losses(name, labels[name]) | rois[name] for name in views}
    apart = {
        name: losses(detector, StudentPass(detector, **{name: views[name]}), name, labels[name])
        for name in views
    }
    for name in views:
        assert set(together[name]) == {"loss_rpn_cls", "loss_rpn_bbox", "loss_cls", "loss_bbox", "acc"}
        for key, value in together[name].items():
            torch.testing.assert_close(value, apart[name][key], rtol=1e-5, atol=1e-6, msg=f"{name} {key}")
    ours, theirs = (
        sum(value for each in both.values() for key, value in each.items() if "loss" in key)
        for both in (together, apart)
    )
    detectors.assert_same_gradients(detector, ours, theirs)


def test_losses_of_outputs_that_are_there_already(detector: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Soft Teacher looks at the scores before it weighs the boxes: still one head call, the same losses."""
    batch = detectors.semi_batch()
    assert batch.strong is not None
    joint = StudentPass(detector, labeled=batch.labeled, strong=batch.strong)
    groups = {
        "a": ("labeled", frcnn.sample_rois(detector, joint.proposals("labeled"), batch.truth)),
        "b": ("strong", frcnn.sample_rois(detector, joint.proposals("strong"), strong_labels(batch))),
    }
    expected = joint.roi_losses(groups)
    outputs = joint.roi_outputs(groups)
    assert {name: len(logits) for name, (logits, _) in outputs.items()} == {"a": 2, "b": 2}
    monkeypatch.setattr(detector.roi_head.bbox_head, "forward", None)
    assert joint.roi_losses(groups, outputs) == expected


def test_a_group_of_few_slots_sees_its_own_view(detector: Any) -> None:
    """The first 7 slots of the strong view's targets alone: the same loss from the joint and a lone pass."""
    batch = detectors.semi_batch()
    assert batch.strong is not None
    joint = StudentPass(detector, labeled=batch.labeled, strong=batch.strong)
    alone = StudentPass(detector, strong=batch.strong)
    whole = frcnn.sample_rois(detector, joint.proposals("strong"), strong_labels(batch))
    groups = {"whole": ("strong", whole), "half": ("strong", whole.positives(7))}
    for name, losses in joint.roi_losses(groups).items():
        expected = alone.roi_losses({name: groups[name]})[name]
        for key, value in losses.items():
            torch.testing.assert_close(value, expected[key], rtol=1e-5, atol=1e-6, msg=f"{name} {key}")


def test_proposals_of_each_view_are_mmdets(detector: Any) -> None:
    batch = detectors.semi_batch()
    assert batch.strong is not None
    joint = StudentPass(detector, labeled=batch.labeled, strong=batch.strong)
    for name, view in (("labeled", batch.labeled), ("strong", batch.strong)):
        found = joint.proposals(name)
        assert not found.boxes.requires_grad
        pyramid = frcnn.features(detector, view.images)
        metas = [sample.metainfo for sample in detectors.samples(view)]
        expected = detector.rpn_head.predict_by_feat(
            *detector.rpn_head(pyramid), batch_img_metas=metas, cfg=detector.train_cfg.rpn_proposal
        )
        for image, theirs in enumerate(expected):
            valid = found.valid[image]
            torch.testing.assert_close(found.boxes[image, valid], theirs.bboxes, rtol=1e-4, atol=1e-3)


def test_the_rpn_learns_no_classes(detector: Any) -> None:
    batch = detectors.semi_batch()
    alone = StudentPass(detector, labeled=batch.labeled)
    with_classes = alone.rpn_losses("labeled", batch.truth)
    without = alone.rpn_losses("labeled", batch.truth.class_agnostic())
    assert batch.truth.classes.any()
    for key, value in with_classes.items():
        torch.testing.assert_close(value, without[key])


def test_supervised_losses_are_mmdets(detector: Any) -> None:
    """detector.loss of mmdet on the same images and labels, term by term and in every gradient."""
    batch = detectors.semi_batch()
    ours = supervised_losses(detector, batch)
    theirs = detector.loss(batch.labeled.images, detectors.samples(batch.labeled, batch.truth))
    assert ours.keys() == theirs.keys()
    summed = {key: sum(value) if isinstance(value, list) else value for key, value in theirs.items()}
    for key, value in ours.items():
        torch.testing.assert_close(value, summed[key].reshape(()), rtol=1e-5, atol=1e-6, msg=key)
    total, expected = (sum(value for key, value in each.items() if "loss" in key) for each in (ours, summed))
    detectors.assert_same_gradients(detector, total, expected)
