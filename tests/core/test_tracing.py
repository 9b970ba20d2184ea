"""torch.compile traces every public function of core without a graph break, and its results are the same."""

import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ssod.core import ema, geometry, labels, losses, matching, reliability, selection
from ssod.core.labels import BoxLabels
from ssod.core.matching import MatchRule, SampleRule

RULE, SAMPLE = MatchRule(0.5, 0.3, 0.1), SampleRule(num=6, pos_fraction=0.5)


def boxes(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(*shape, 2, generator=generator) * 20
    return torch.cat([low, low + 2 + torch.rand(*shape, 2, generator=generator) * 20], dim=-1)


def some_labels(ignored: bool = False) -> BoxLabels:
    """Two images with three slots each."""
    valid = torch.tensor([[True, True, False], [True, False, False]])
    scores = torch.tensor([[0.9, 0.6, 0.1], [0.7, 0.2, 0.3]])
    classes = torch.tensor([[0, 2, 1], [1, 0, 0]])
    spread = torch.full((2, 3), 0.01)
    return BoxLabels(boxes(2, 3), classes, scores, valid, spread, ~valid if ignored else None)


def logits(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


SIZE = torch.tensor([[30.0, 40.0], [25.0, 35.0]])
TURN = torch.eye(3).repeat(2, 1, 1) + 0.01
MATCHED = torch.tensor([[0, -1, -1, -2, 1, -1, -1, 0], [-1, -1, 2, -2, -2, -1, 0, 1]])
YES = torch.ones(2, 8, dtype=torch.bool)
Case = tuple[Callable[..., Any], tuple[Any, ...]]
CASES: list[Case] = [
    (geometry.project_boxes, (boxes(2, 3), TURN, SIZE)),
    (geometry.clip_boxes, (boxes(2, 3, 4), SIZE)),
    (geometry.visible_share, (boxes(2, 3), boxes(2, 3, seed=1))),
    (geometry.box_area, (boxes(2, 3),)),
    (geometry.box_sides, (boxes(2, 3),)),
    (geometry.jitter_boxes, (boxes(2, 3), 4)),
    (geometry.pairwise_iou, (boxes(2, 3), boxes(2, 5, seed=1))),
    (losses.weighted_sum, (logits(4), torch.tensor([1.0, 0, 2, 0]), torch.tensor(3.0))),
    (losses.consistency_mse, (logits(2, 3, 4), logits(2, 3, 4, seed=1), YES[:, :3], boxes(2, 3))),
    (losses.focal_cross_entropy, (logits(5, 4), torch.arange(5) % 4, 1.5)),
    (matching.assign, (boxes(8), YES, some_labels(), RULE)),
    (matching.assign, (boxes(2, 8), YES, some_labels(ignored=True), RULE)),
    (matching.sample, (MATCHED, SAMPLE)),
    (matching.gather_boxes, (boxes(2, 8), MATCHED.clamp(min=0))),
    (matching.gather_boxes, (boxes(8), MATCHED.clamp(min=0))),
    (reliability.box_spread, (boxes(2, 4, 3), "code")),
    (reliability.box_spread, (boxes(2, 4, 3), "paper")),
    (reliability.background_reliability, (logits(2, 8, 4).softmax(-1),)),
    (reliability.difference_reliability, (logits(2, 8, 4).softmax(-1), logits(2, 8, 4, seed=1).softmax(-1))),
    (reliability.overlap_reliability, (boxes(2, 8), some_labels(), True)),
    (
        reliability.reliability_by,
        ("score_difference", boxes(2, 8), some_labels(), logits(2, 8, 4), logits(2, 8, 4, seed=1)),
    ),
    (reliability.soften_background, (MATCHED >= 0, YES, logits(2, 8).sigmoid(), "code")),
    (reliability.soften_background, (MATCHED >= 0, YES, logits(2, 8).sigmoid(), "paper")),
    (labels.project_labels, (some_labels(ignored=True), TURN, SIZE, 0.5)),
]
METHODS: dict[str, tuple[Any, ...]] = {
    "where": (YES[:, :3],),
    "score_above": (0.5,),
    "spread_below": (0.02,),
    "with_boxes": (boxes(2, 3, seed=1),),
    "class_agnostic": (),
    "first": (2,),
    "skip_empty": (),
    "per_image": (),
}
POLICIES: list[Any] = [
    0.5,
    dict(type="IgnoreBand", low=0.3, high=0.7),
    dict(type="ClassAdaptive", num_classes=3),
]


def traced(function: Callable[..., Any]) -> Callable[..., Any]:
    torch.compiler.reset()
    return torch.compile(function, backend="eager", fullgraph=True)


def assert_same(first: Any, second: Any) -> None:
    """Two values, with what they are made of, are equal; 1e-6 for a sum in another order."""
    if isinstance(first, Tensor):
        torch.testing.assert_close(first, second, rtol=1e-6, atol=1e-6)
    elif is_dataclass(first):
        for field in fields(first):
            assert_same(getattr(first, field.name), getattr(second, field.name))
    elif isinstance(first, tuple):
        for one, other in zip(first, second, strict=True):
            assert_same(one, other)
    else:
        assert first == second


@pytest.mark.parametrize(("function", "values"), CASES, ids=[case[0].__name__ for case in CASES])
def test_functions(function: Callable[..., Any], values: tuple[Any, ...]) -> None:
    torch.manual_seed(0)
    expected = function(*values)
    torch.manual_seed(0)
    assert_same(traced(function)(*values), expected)


@pytest.mark.parametrize("name", METHODS)
def test_what_labels_do(name: str) -> None:
    values = METHODS[name]
    expected = getattr(some_labels(), name)(*values)
    assert_same(traced(lambda labels: getattr(labels, name)(*values))(some_labels()), expected)


@pytest.mark.parametrize("spec", POLICIES, ids=str)
def test_selections(spec: Any) -> None:
    expected, other = selection.Selection.of(spec), selection.Selection.of(spec)
    step = traced(other)
    for _ in range(2):  # ClassAdaptive counts
        assert_same(step(some_labels()), expected(some_labels()))
    assert_same(tuple(other.buffers()), tuple(expected.buffers()))


@pytest.mark.parametrize(
    "change", [lambda a, b: ema.ema_update(a, b, 0.9), ema.copy_weights], ids=["ema", "copy"]
)
def test_averages(change: Callable[..., None]) -> None:
    torch.manual_seed(0)
    source, one, other = (nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)) for _ in range(3))
    other.load_state_dict(one.state_dict())
    change(one, source)
    traced(change)(other, source)
    assert_same(tuple(other.state_dict().values()), tuple(one.state_dict().values()))


def public(module: ModuleType) -> set[str]:
    """Names of the functions that a module defines for others."""
    found = inspect.getmembers(module, inspect.isfunction)
    return {name for name, each in found if each.__module__ == module.__name__ and not name.startswith("_")}


@pytest.mark.parametrize(
    "module", [geometry, labels, losses, matching, reliability], ids=lambda each: each.__name__
)
def test_none_is_left_out(module: ModuleType) -> None:
    assert public(module) <= {function.__name__ for function, _ in CASES}


def test_no_method_of_labels_is_left_out() -> None:
    methods = {
        name for name, _ in inspect.getmembers(BoxLabels, inspect.isfunction) if not name.startswith("_")
    }
    assert methods - {"pad"} == set(
        METHODS
    )  # `pad` makes labels of lists of any length, before a step or after NMS
