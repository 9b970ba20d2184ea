"""Spread, background reliability and softened weights against loops and the formulas of paper and code."""

from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from reference import boxes as reference
from reference import pseudo_labels
from torch import Tensor

from ssod.core.labels import BoxLabels
from ssod.core.reliability import (
    background_reliability,
    box_spread,
    difference_reliability,
    overlap_reliability,
    reliability_by,
    soften_background,
)

COUNTS = st.lists(st.sampled_from([0, 1, 2, 7, 30]), min_size=1, max_size=3)
SEEDS = st.integers(0, 2**31)
PINNED = settings(max_examples=25, deadline=None, derandomize=True, database=None)
INDICATORS = ["teacher_background", "student_background", "score_difference", "iou", "reverse_iou", "none"]


def copies(seed: int = 0) -> Tensor:
    """Jittered copies (2, 6, 5, 4); one box is wide, one thinner than a pixel."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(2, 1, 5, 2, generator=generator) * 50
    side = 20 + torch.rand(2, 1, 5, 2, generator=generator) * torch.tensor([200.0, 30.0])
    side[0, 0, 0] = torch.tensor([0.1, 0.2])
    return torch.cat([corner, corner + side], dim=-1) + torch.randn(2, 6, 5, 4, generator=generator)


@pytest.mark.parametrize("norm", ["code", "paper"])
def test_box_spread_box_by_box(norm: Any) -> None:
    refined = copies()
    spread, mean = box_spread(refined, norm)
    expected = [[reference.spread(refined[b, :, k].tolist(), norm) for k in range(5)] for b in range(2)]
    torch.testing.assert_close(spread, torch.tensor(expected))
    torch.testing.assert_close(mean, refined.sum(dim=1) / 6)


def test_box_spread_by_hand() -> None:
    """Two copies 2 px apart in x: std is √2, twice over 4 coordinates; the box is 40 x 10."""
    refined = torch.tensor([[[[0.0, 0, 40, 10]], [[2.0, 0, 42, 10]]]])
    torch.testing.assert_close(box_spread(refined, "code")[0], torch.tensor([[2 * 2**0.5 / 40 / 4]]))
    torch.testing.assert_close(box_spread(refined, "paper")[0], torch.tensor([[2 * 2**0.5 / 25 / 4]]))


def test_equal_copies_have_no_spread() -> None:
    assert box_spread(copies()[:, :1].expand(-1, 7, -1, -1))[0].abs().max() < 1e-5


def test_spread_has_no_unit() -> None:
    large = copies()[:, :, 1:] * 16  # without the thin box, whose side counts as 1 px
    torch.testing.assert_close(box_spread(large)[0], box_spread(large * 8)[0])


def test_background_reliability_is_the_last_score() -> None:
    scores = torch.tensor([[[0.7, 0.1, 0.2], [0.0, 0.0, 1.0]], [[0.5, 0.5, 0.0], [0.0, 0.0, 1.0 + 1e-6]]])
    torch.testing.assert_close(background_reliability(scores), torch.tensor([[0.2, 1.0], [0.0, 1.0]]))
    assert background_reliability(scores).max() <= 1


USED = torch.tensor([[True, True, True, True], [True, True, False, False]])
POSITIVE = torch.tensor([[True, False, False, False], [True, True, False, False]])
RELIABILITY = torch.tensor([[0.9, 0.5, 0.25, 0.0], [0.9, 0.9, 0.9, float("nan")]]).nan_to_num(0.9)


def test_code_weights_are_mmdets() -> None:
    """weights: foreground 1, background r; Σ w l / max(Σ w, 1) over what is used (mmdet's code)."""
    weights, normaliser = soften_background(POSITIVE, USED, RELIABILITY, "code")
    assert weights.tolist() == [[1, 0.5, 0.25, 0], [1, 1, 0, 0]]
    losses = torch.rand(2, 4)
    label_weights = weights[USED]
    mean = (losses[USED] * label_weights).sum() / len(label_weights)  # their head's loss
    expected = mean * len(label_weights) / max(sum(label_weights), 1.0)
    torch.testing.assert_close((weights * losses).sum() / normaliser, expected)


def test_paper_weights_are_equation_4_and_5() -> None:
    """1 / N_fg for the 3 foreground boxes, r_j / Σ r_k for the background."""
    weights, normaliser = soften_background(POSITIVE, USED, RELIABILITY, "paper")
    expected = [[1 / 3, 0.5 / 0.75, 0.25 / 0.75, 0], [1 / 3, 1 / 3, 0, 0]]
    torch.testing.assert_close(weights, torch.tensor(expected))
    assert normaliser == 1


NONE = torch.zeros(2, 4, dtype=torch.bool)
EDGES: list[tuple[str, Tensor, Tensor, Tensor, float, float]] = [
    # what it shows, positive, used, reliability, Σ weights / normaliser of code, of paper
    ("nothing is used", NONE, NONE, RELIABILITY, 0.0, 0.0),
    ("no foreground", NONE, USED, RELIABILITY, 1.0, 1.0),
    ("no background", USED, USED, RELIABILITY, 1.0, 1.0),
    ("both", POSITIVE, USED, RELIABILITY, 1.0, 2.0),
    ("teacher sees no background", POSITIVE, USED, RELIABILITY * 0, 1.0, 1.0),
    ("weights of less than 1 are not blown up", NONE, USED, RELIABILITY * 0.1, 0.345, 1.0),
]


@pytest.mark.parametrize("row", EDGES, ids=[row[0] for row in EDGES])
def test_total_weight(row: tuple[str, Tensor, Tensor, Tensor, float, float]) -> None:
    _, positive, used, reliability, code, paper = row
    for norm, expected in (("code", code), ("paper", paper)):
        weights, normaliser = soften_background(positive, used, reliability, norm)  # type: ignore[arg-type]
        torch.testing.assert_close(weights.sum() / normaliser, torch.tensor(expected))
        assert (weights[~used] == 0).all()


# ---------------------------------------------------------------- against loops, on random inputs


@PINNED
@given(st.sampled_from([0, 1, 2, 7, 30]), st.integers(2, 12), SEEDS, st.sampled_from(["code", "paper"]))
@example(0, 10, 0, "code")
@example(1, 10, 0, "code")
@example(500, 10, 0, "code")
@example(500, 10, 0, "paper")
def test_box_spread_of_random_boxes(count: int, num_jitters: int, seed: int, norm: Any) -> None:
    generator = torch.Generator().manual_seed(seed)
    boxes = pseudo_labels.random_boxes(max(count, 1), generator)  # an empty image has a slot of padding
    refined = boxes + torch.randn(num_jitters, len(boxes), 4, generator=generator)
    spread, _ = box_spread(refined[None], norm)
    expected = [reference.spread(refined[:, k].tolist(), norm) for k in range(len(boxes))]
    torch.testing.assert_close(spread, torch.tensor([expected]), rtol=1e-5, atol=1e-5)


@PINNED
@given(st.sampled_from(INDICATORS), COUNTS, st.sampled_from([1, 12]), SEEDS)
@example("iou", [0], 3, 0)
@example("reverse_iou", [1], 1, 0)
@example("iou", [500, 0, 1], 500, 0)
@example("reverse_iou", [500], 500, 0)
def test_every_indicator_box_by_box(indicator: Any, counts: list[int], slots: int, seed: int) -> None:
    labels = pseudo_labels.random_labels(counts, seed)
    generator = torch.Generator().manual_seed(seed)
    boxes = torch.stack([pseudo_labels.random_boxes(slots, generator) for _ in counts])
    student, teacher = (
        pseudo_labels.random_scores(len(counts), slots, generator=generator) for _ in range(2)
    )
    found = reliability_by(indicator, boxes, labels, student, teacher)
    own = [labels.boxes[i, labels.valid[i]].tolist() for i in range(len(counts))]
    expected = [
        [
            pseudo_labels.reliability(indicator, box, own[i], student[i, j].tolist(), teacher[i, j].tolist())
            for j, box in enumerate(boxes[i].tolist())
        ]
        for i in range(len(counts))
    ]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-5, atol=1e-5)
    assert found.min() >= 0 and found.max() <= 1


@PINNED
@given(st.integers(1, 3), st.sampled_from([1, 7, 40]), SEEDS, st.sampled_from(["code", "paper"]))
@example(1, 1, 0, "paper")
@example(4, 512, 0, "code")
@example(4, 512, 0, "paper")
def test_weights_box_by_box(images: int, slots: int, seed: int, norm: Any) -> None:
    """Σ w l / normaliser, term by term; slots that are not used have no weight."""
    generator = torch.Generator().manual_seed(seed)
    used = torch.rand(images, slots, generator=generator) > 0.3
    positive = used & (torch.rand(images, slots, generator=generator) > 0.7)
    reliability = torch.rand(images, slots, generator=generator)
    reliability[torch.rand(images, slots, generator=generator) > 0.8] = 0.0
    weights, normaliser = soften_background(positive, used, reliability, norm)
    expected, divisor = pseudo_labels.background_weights(
        positive.tolist(), used.tolist(), reliability.tolist(), norm
    )
    torch.testing.assert_close(weights / normaliser, torch.tensor(expected) / divisor, rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------- indicators by hand


def test_difference_of_background_is_that_of_foreground() -> None:
    student, teacher = torch.tensor([[0.7, 0.1, 0.2]]), torch.tensor([[0.1, 0.0, 0.9]])
    assert difference_reliability(student, teacher).item() == pytest.approx(1 - 0.7)
    assert difference_reliability(teacher, student).item() == pytest.approx(1 - 0.7)
    other_class = torch.tensor([[0.1, 0.7, 0.2]])
    assert difference_reliability(student, other_class).item() == 1  # which class is not asked


def test_overlap_with_the_nearest_label() -> None:
    labels = BoxLabels.pad([torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 20]])], [torch.zeros(2).long()])
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 5, 10, 20], [50, 50, 60, 60]]])
    assert overlap_reliability(boxes, labels).tolist() == [[1, 0.75, 0]]
    assert overlap_reliability(boxes, labels, reverse=True).tolist() == [[0, 0.25, 1]]
    one = labels.where(torch.tensor([[True, False]]))
    torch.testing.assert_close(overlap_reliability(boxes, one), torch.tensor([[1, 0.25, 0]]))


def test_an_indicator_without_the_teacher_needs_no_teacher() -> None:
    labels = pseudo_labels.random_labels([3], 0)
    boxes, scores = torch.rand(1, 5, 4), torch.full((1, 5, 3), 1 / 3)
    for indicator in ("student_background", "iou", "reverse_iou", "none"):
        assert reliability_by(indicator, boxes, labels, scores, None).shape == (1, 5)  # type: ignore[arg-type]
