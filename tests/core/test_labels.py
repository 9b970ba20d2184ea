"""BoxLabels: padding, and filters that are masks."""

from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from ssod.core.labels import BoxLabels


def labels() -> BoxLabels:
    """Two images, three slots; the last slot of the second image is padding."""
    return BoxLabels(
        boxes=torch.tensor(
            [[[0.0, 0, 10, 10], [5, 5, 9, 30], [1, 2, 3, 4]], [[0, 0, 4, 4], [2, 2, 8, 8], [0, 0, 0, 0]]]
        ),
        classes=torch.tensor([[0, 1, 2], [2, 1, 0]]),
        scores=torch.tensor([[0.9, 0.91, 0.4], [0.95, 0.5, 0.99]]),
        valid=torch.tensor([[True, True, True], [True, True, False]]),
        spread=torch.tensor([[0.02, 0.019, 0.1], [0.0, 0.5, 0.0]]),
    )


T, F = True, False
FILTERS: list[tuple[str, Any, list[list[bool]]]] = [
    # "above" is strict, and padding with a high score stays padding
    ("score above a number", lambda x: x.score_above(0.9), [[F, T, F], [T, F, F]]),
    ("bound per slot", lambda x: x.score_above(torch.tensor([0.8, 0.95, 0.3])), [[T, F, T], [T, F, F]]),
    # a class-adaptive threshold, gathered by class
    (
        "bound per class",
        lambda x: x.score_above(torch.tensor([0.95, 0.4, 0.3])[x.classes]),
        [[F, T, T], [T, T, F]],
    ),
    ("spread below, strict", lambda x: x.spread_below(0.02), [[F, T, F], [T, F, F]]),
    ("two masks meet", lambda x: x.score_above(0.5).spread_below(0.05), [[T, T, F], [T, F, F]]),
    ("a mask of one's own", lambda x: x.where(x.classes == 2), [[F, F, T], [T, F, F]]),
]


@pytest.mark.parametrize(("keep", "valid"), [row[1:] for row in FILTERS], ids=[row[0] for row in FILTERS])
def test_a_filter_changes_valid_and_nothing_else(keep: Any, valid: list[list[bool]]) -> None:
    before = labels()
    after = keep(before)
    assert after.valid.tolist() == valid
    assert all(
        getattr(after, name) is getattr(before, name) for name in ("boxes", "classes", "scores", "spread")
    )
    assert before.valid.tolist() == labels().valid.tolist()


def test_with_boxes_drops_what_has_no_side_left() -> None:
    thin = torch.tensor([0.0, 0, 0.01, 5])  # exactly min_side: not above it
    moved = torch.stack([thin, torch.tensor([0.0, 0, 0.02, 5]), torch.tensor([3.0, 3, 1, 9])]).repeat(2, 1, 1)
    after = labels().with_boxes(moved)
    assert after.valid.tolist() == [[F, T, F], [F, T, F]]
    assert after.boxes is moved
    assert labels().with_boxes(moved, min_side=0.0).valid.tolist() == [[T, T, F], [T, T, F]]
    assert labels().with_boxes(moved, min_side=6.0).valid.sum() == 0


def test_ignored_boxes_stay_what_they_are_through_every_step() -> None:
    """Like valid ones: a mask or a side that is lost ends both; the rest keeps them."""
    band = torch.tensor([[F, F, T], [F, T, F]])
    before = replace(labels(), valid=labels().valid & ~band, ignored=band)
    assert before.class_agnostic().ignored is band
    assert before.per_image() == 1.5
    after = before.where(torch.tensor([[F, T, F], [T, T, T]]))
    assert after.valid.tolist() == [[F, T, F], [T, F, F]]
    assert after.ignored is not None and after.ignored.tolist() == [[F, F, F], [F, T, F]]
    thin = before.boxes.clone()
    thin[1, 1, 2] = thin[1, 1, 0]
    moved = before.with_boxes(thin)
    assert moved.ignored is not None and moved.ignored.tolist() == [[F, F, T], [F, F, F]]
    assert labels().where(band).ignored is None


def test_class_agnostic_keeps_the_boxes() -> None:
    after = labels().class_agnostic()
    assert after.classes.tolist() == [[0, 0, 0], [0, 0, 0]]
    assert after.boxes.equal(labels().boxes) and after.valid.equal(labels().valid)


def test_per_image_is_the_mean_count() -> None:
    assert labels().per_image() == 2.5
    empty = BoxLabels(
        torch.zeros(0, 1, 4), torch.zeros(0, 1).long(), torch.zeros(0, 1), torch.zeros(0, 1).bool()
    )
    assert empty.per_image() == 0


@pytest.mark.parametrize("scored", [False, True])
def test_pad_and_back(scored: bool) -> None:
    boxes = [torch.tensor([[1.0, 2, 3, 4]], dtype=torch.float64), torch.zeros(0, 4), torch.rand(3, 4)]
    classes = [torch.tensor([5]), torch.zeros(0, dtype=torch.int64), torch.tensor([1, 2, 0])]
    scores = [torch.tensor([0.25]), torch.zeros(0), torch.tensor([0.5, 0.125, 1.0])] if scored else None
    padded = BoxLabels.pad(boxes, classes, scores)
    assert padded.valid.tolist() == [[T, F, F], [F, F, F], [T, T, T]]
    assert padded.boxes.dtype == padded.scores.dtype == torch.float32 and padded.classes.dtype == torch.int64
    for image in range(3):
        valid = padded.valid[image]
        assert padded.boxes[image, valid].equal(boxes[image].float())
        assert padded.classes[image, valid].equal(classes[image])
        expected = torch.ones(len(boxes[image])) if scores is None else scores[image]
        assert padded.scores[image, valid].equal(expected)


def test_pad_of_nothing_keeps_one_slot() -> None:
    padded = BoxLabels.pad([torch.zeros(0, 4)] * 2, [torch.zeros(0).long()] * 2)
    assert padded.boxes.shape == (2, 1, 4) and padded.valid.tolist() == [[F], [F]]


WRONG: list[tuple[str, dict[str, Tensor], str]] = [
    ("boxes without a batch", dict(boxes=torch.zeros(3, 4)), r"boxes must be \(B, K, 4\), got \(3, 4\)"),
    ("five numbers", dict(boxes=torch.zeros(2, 3, 5)), r"boxes must be \(B, K, 4\), got \(2, 3, 5\)"),
    (
        "a class too few",
        dict(classes=torch.zeros(2, 2)),
        r"classes must be \(2, 3\) like boxes, got \(2, 2\)",
    ),
    ("scores unbatched", dict(scores=torch.zeros(3)), r"scores must be \(2, 3\)"),
    ("valid of another batch", dict(valid=torch.zeros(1, 3)), r"valid must be \(2, 3\)"),
    ("ignored of another batch", dict(ignored=torch.zeros(1, 3)), r"ignored must be \(2, 3\)"),
    ("spread per coordinate", dict(spread=torch.zeros(2, 3, 4)), r"spread must be \(2, 3\)"),
]


@pytest.mark.parametrize(("change", "message"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_wrong_shapes_are_named(change: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(labels(), **change)


def test_no_spread_no_filter() -> None:
    with pytest.raises(ValueError, match="carry no spread"):
        replace(labels(), spread=None).spread_below(0.1)


def test_labels_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        labels().valid = torch.zeros(2, 3).bool()  # type: ignore[misc]


def test_skip_empty_names_the_images_that_teach() -> None:
    before = labels()
    none_in_second = before.where(torch.tensor([[True], [False]]))
    assert before.taught is None and before.skip_empty().taught.tolist() == [T, T]
    after = none_in_second.skip_empty()
    assert after.taught.tolist() == [T, F] and after.valid is none_in_second.valid
    assert after.class_agnostic().first(1).taught is after.taught  # a filter doesn't lose it
    with pytest.raises(ValueError, match=r"taught must be \(2,\), got \(3,\)"):
        replace(before, taught=torch.ones(3, dtype=torch.bool))


def test_first_cuts_every_slot_tensor() -> None:
    before, after = labels(), labels().first(2)
    for name in ("boxes", "classes", "scores", "valid", "spread"):
        assert getattr(after, name).equal(getattr(before, name)[:, :2])
    assert replace(before, spread=None).first(1).spread is None
    assert before.first(9).valid.equal(before.valid)
