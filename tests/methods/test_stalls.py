"""A step of every method asks the device for nothing: no operator of ours would make the host wait."""

from pathlib import Path
from typing import Any

import pytest
import torch
from reference import detectors
from reference.stalls import Stalls

import ssod
from ssod.models import suppression

PACKAGE = Path(ssod.__file__).parent
METHODS: dict[str, dict[str, Any]] = {
    "SoftTeacher": dict(floor=0.3, rpn_min_score=0.5, cls_min_score=0.5, box_max_spread=0.1),
    "MeanTeacher": dict(rpn_weight=1.0),
    "FixMatch": dict(min_score=0.5),
    "UnbiasedTeacher": dict(min_score=0.5),
}


def stalls_of(name: str) -> Stalls:
    """Those of a step's losses and their gradient: 2 labeled and 2 unlabeled images."""
    student, teacher, batch = detectors.student_and_teacher()
    method = detectors.method(name, METHODS[name])
    with Stalls() as stalls:
        losses = method.losses(student, teacher, batch, 1.0)
        torch.stack([value for key, value in losses.items() if "loss" in key]).sum().backward()
    assert losses.get("num_boxes_cls", torch.ones(())) > 0  # a step that learns from unlabeled images, too
    return stalls


@pytest.mark.parametrize("name", METHODS)
def test_none_is_issued_from_here(registered: None, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU. What is left: NMS once per image, mmdet's RoI extractor per level, its RPN loss."""
    monkeypatch.setattr(suppression, "host_waits", lambda device: True)
    stalls = stalls_of(name)
    assert not stalls.inside(PACKAGE)
    assert stalls.found.total() <= 22


def test_a_cpu_is_asked_for_the_wanted_boxes(registered: None) -> None:
    found = stalls_of("SoftTeacher").inside(PACKAGE)
    assert {(Path(file).name, operator) for file, operator in found} == {("suppression.py", "aten::nonzero")}
