"""A step of every method asks the device for nothing: no operator of ours would make the host wait."""

from typing import Any

import pytest
import torch
from reference import detectors

from ssod.study.benchmark.as_gpu import as_on_a_gpu, on_torchvisions_kernels
from ssod.study.benchmark.counting import OperatorCounter

METHODS: dict[str, dict[str, Any]] = {
    "SoftTeacher": dict(floor=0.3, rpn_min_score=0.5, cls_min_score=0.5, box_max_spread=0.1),
    "MeanTeacher": dict(rpn_weight=1.0),
    "FixMatch": dict(min_score=0.5),
    "UnbiasedTeacher": dict(min_score=0.5),
}
NMS = "torchvision::nms"  # the kernel whose result is as long as it is


def waits_of(name: str) -> dict[tuple[str, str], int]:
    """{(file, operator): calls} of a step's losses and their gradient: 2 labeled and 2 unlabeled images."""
    student, teacher, batch = detectors.student_and_teacher()
    method = detectors.method(name, METHODS[name])
    with OperatorCounter() as counter:
        losses = method.losses(student, teacher, batch, 1.0)
        torch.stack([value for key, value in losses.items() if "loss" in key]).sum().backward()
    assert losses.get("num_boxes_cls", torch.ones(())) > 0  # a step that learns from unlabeled images, too
    waits: dict[tuple[str, str], int] = {}
    for (operator, file, _), count in counter.waits.items():
        waits[file, operator] = waits.get((file, operator), 0) + count
    return waits


def of_ours(waits: dict[tuple[str, str], int]) -> set[tuple[str, str]]:
    """The places in this package."""
    return {(file, operator) for file, operator in waits if file.startswith("ssod/")}


@pytest.mark.parametrize("name", METHODS)
def test_none_is_issued_from_here(registered: None, name: str) -> None:
    """As on a GPU. What is left: NMS once per image, mmdet's RPN loss."""
    with as_on_a_gpu(None):
        waits = waits_of(name)
    assert of_ours(waits) == {("ssod/models/suppression.py", NMS)}
    assert sum(waits.values()) <= 10


def test_a_cpu_is_asked_for_the_wanted_boxes(registered: None) -> None:
    with on_torchvisions_kernels():
        waits = waits_of("SoftTeacher")
    place = "ssod/models/suppression.py"
    assert of_ours(waits) == {
        (place, NMS),
        (place, "aten::nonzero"),
        ("ssod/models/regions.py", "aten::unique_dim"),
        ("ssod/kernels/pyramid.py", "aten::nonzero"),
    }
