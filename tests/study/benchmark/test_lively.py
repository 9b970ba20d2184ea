"""Random heads are set to find as many boxes as asked for; the bound on the spread follows if it must."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from reference import detectors

from ssod.models import frcnn
from ssod.study.benchmark import lively


def build(method: dict[str, Any]) -> Any:
    """A model with random weights, as a config's; none of its boxes is sure."""
    from ssod.registry import MODELS

    torch.manual_seed(3)
    model = MODELS.build(
        dict(
            type="SemiDetector",
            detector=detectors.config(exhaustive=False),
            method=method,
            teacher=dict(type="EMATeacher"),
            data_preprocessor=dict(type="SemiPreprocessor", pad_size_divisor=32),
        )
    )
    model.init_weights()
    return model.train()


@pytest.mark.parametrize("boxes", [3, 12])
def test_about_as_many_boxes_as_wanted_a_third_of_them_sure(registered: None, boxes: int) -> None:
    model, batch = build(dict(type="SoftTeacher")), detectors.semi_batch()
    found, _ = frcnn.detect(model.student, batch.weak, 0.5)
    assert found.per_image() == 0
    lively.make_lively(model, batch, boxes)
    found, _ = frcnn.detect(model.student, batch.weak, 0.5)
    assert boxes - 1 <= found.per_image() <= boxes + 1
    assert found.score_above(0.9).per_image() >= boxes / 3 - 1
    labels, _ = frcnn.detect(model.teacher, batch.weak, 0.5)  # the teacher is a copy
    assert torch.equal(labels.boxes, found.boxes)


def test_one_stage_stays_as_it_is(registered: None) -> None:
    model, batch = build(dict(type="FixMatch")), detectors.semi_batch()
    del model.student.roi_head
    before = {name: each.clone() for name, each in model.student.state_dict().items()}
    lively.make_lively(model, batch, 5)
    assert all(torch.equal(each, before[name]) for name, each in model.student.state_dict().items())


def test_the_bound_on_the_spread_rises_to_the_median(registered: None) -> None:
    model, batch = build(dict(type="SoftTeacher", box_max_spread=1e-4)), detectors.semi_batch()
    lively.make_lively(model, batch, 8)
    torch.manual_seed(0)
    bound = lively.widen_spread(model, batch)
    torch.manual_seed(0)
    labels = model.pseudo_labels(batch)["weak"]
    below = labels.spread[labels.valid] < bound
    assert 0.4 <= below.float().mean() <= 0.65
    assert lively.widen_spread(model, batch) == bound  # which is enough


def test_other_methods_have_no_such_bound(registered: None) -> None:
    assert lively.widen_spread(build(dict(type="FixMatch")), detectors.semi_batch()) is None
