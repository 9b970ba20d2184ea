"""What is counted: functions whose operators and waits are known, and the line that is charged."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor

from ssod.study.benchmark.counting import OperatorCounter

X = torch.arange(6.0)
MASK = X > 2
BOXES = torch.tensor([[0.0, 0.0, 9.0, 9.0], [1.0, 1.0, 9.0, 9.0]])
IMAGES = torch.zeros(2, 3)


def put_tensor(x: Tensor) -> None:
    x[MASK] = torch.ones(3)


def put_number(x: Tensor) -> None:
    x[MASK] = 0.0


WAITS: list[tuple[str, Callable[[Tensor], object], int]] = [
    ("a number is read", lambda x: x.sum().item(), 1),
    ("a tensor is asked whether it is true", lambda x: bool((x > 0).all()), 1),
    ("and by an if", lambda x: 1 if (x > 0).any() else 2, 1),
    ("nonzero", lambda x: x.nonzero(), 1),
    ("a boolean index", lambda x: x[MASK], 1),
    ("a boolean index of one axis of two", lambda x: IMAGES[:, torch.tensor([True, False, True])], 1),
    ("masked_select", lambda x: x.masked_select(MASK), 1),
    ("a tensor put where a mask is", put_tensor, 1),
    ("unique", lambda x: x.unique(), 1),
    ("NMS", lambda x: torchvision.ops.nms(BOXES, torch.ones(2), 0.5), 1),
    ("three reads", lambda x: x[:3].tolist(), 0),  # a CPU's tolist reads memory; a GPU's copies first
    ("an index of whole numbers", lambda x: x[torch.tensor([0, 2])], 0),
    ("a number put where a mask is: torch fills", put_number, 0),
    (
        "where, gather and topk",
        lambda x: torch.where(MASK, x, 0).topk(2).values.gather(0, torch.zeros(1).long()),
        0,
    ),
    ("repeat_interleave of a known length", lambda x: x.repeat_interleave(2), 0),
    ("repeat_interleave of unknown length", lambda x: x.repeat_interleave(torch.ones(6).long()), 1),
    ("float arithmetic", lambda x: (x * 2 + 1).softmax(0), 0),
]


@pytest.mark.parametrize(("name", "run", "expected"), WAITS, ids=[row[0] for row in WAITS])
def test_what_would_make_the_host_wait(name: str, run: Callable[[Tensor], object], expected: int) -> None:
    with OperatorCounter() as counter:
        run(X.clone())
    assert counter.waits.total() == expected


def test_operators_are_counted_one_by_one() -> None:
    with OperatorCounter() as counter:
        (X * 2 + 1).relu()
    assert counter.calls == {"aten::mul.Tensor": 1, "aten::add.Tensor": 1, "aten::relu": 1}


def test_a_fused_update_is_one_operator() -> None:
    many, others = [torch.zeros(3) for _ in range(90)], [torch.ones(3) for _ in range(90)]
    with OperatorCounter() as counter:
        torch._foreach_lerp_(many, others, 0.1)
    assert counter.calls.total() == 1


def test_the_line_is_that_of_the_caller_outside_of_torch() -> None:
    lines, first = inspect.getsourcelines(charged)
    with OperatorCounter() as counter:
        charged(X)
    name = Path(__file__).name
    at = next(number for number, line in enumerate(lines, first) if "batched_nms" in line)
    assert counter.waits["torchvision::nms", name, at] == 1
    assert {file for _, file, _ in counter.waits} == {name}


def charged(x: Tensor) -> None:
    """A wait behind functions of torchvision, and one behind a method of torch."""
    torchvision.ops.batched_nms(BOXES, torch.ones(2), torch.zeros(2).long(), 0.5)
    torch.nn.functional.one_hot(x.long()).sum().item()


def test_the_backward_pass_is_charged_to_autograd() -> None:
    x = X.clone().requires_grad_()
    y = (x * 2).sum()
    with OperatorCounter() as counter:
        y.backward()
    assert set(counter.files) == {"autograd", Path(__file__).name}  # the first gradient is made by us
    assert counter.files["autograd"] >= 2


def test_a_file_of_a_package_is_named_from_the_package_on(registered: None) -> None:
    from ssod.core.geometry import pairwise_iou

    with OperatorCounter() as counter:
        pairwise_iou(BOXES, BOXES)
    assert set(counter.files) == {"ssod/core/geometry.py"}
    assert counter.report()["operators_by_source"] == {"ssod": counter.calls.total()}


def test_the_report_adds_up() -> None:
    with OperatorCounter() as counter:
        for _ in range(3):
            X.nonzero()
        X.sum().item()
    waits = counter.report()["waits"]
    assert waits["total"] == 4 == sum(waits["by_source"].values()) == sum(waits["by_file"].values())
    assert waits["by_operator"] == {"aten::nonzero": 3, "aten::_local_scalar_dense": 1}
    assert [place["count"] for place in waits["places"]] == [3, 1]
