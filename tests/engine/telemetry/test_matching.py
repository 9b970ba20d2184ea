"""Matches, precision, recall and mean IoU against pycocotools' own evaluation, on random boxes."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ssod.data.hidden_truth import Truth
from ssod.engine.telemetry.matching import Found, Matches, curve, joined, match, quality

CLASSES = 3


def scene(seed: int, images: int = 4) -> list[tuple[Found, Truth]]:
    """Images with up to 8 truth boxes, some crowds, and boxes near them, far from them, of wrong classes.

    Half of the scenes have whole numbers, where IoUs are equal now and then, or exactly one half.
    """
    random = np.random.default_rng(seed)
    made = []
    for _ in range(images):
        number = int(random.integers(0, 9))
        truth = boxes_of(random, number)
        near = truth[random.integers(0, number, int(random.integers(0, 12)))] if number else truth
        near = near + random.normal(0, random.choice([1, 6, 15]), near.shape)
        boxes = np.concatenate([near, boxes_of(random, int(random.integers(0, 5)))])
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        if seed % 2:
            boxes = boxes.round()
        found = Found(
            boxes, random.integers(0, CLASSES, len(boxes)), random.permutation(len(boxes)) / 50 + 0.1
        )
        crowd = random.random(number) < 0.2
        made.append(
            (found, Truth(truth.round() if seed % 2 else truth, random.integers(0, CLASSES, number), crowd))
        )
    return made


def boxes_of(random: Any, number: int) -> Any:
    corner = random.uniform(0, 60, (number, 2))
    return np.concatenate([corner, corner + random.uniform(4, 40, (number, 2))], axis=1)


def ours(images: list[tuple[Found, Truth]], by_class: bool = True) -> Matches:
    return joined([match(found, truth, CLASSES, by_class=by_class) for found, truth in images], CLASSES)


def theirs(images: list[tuple[Found, Truth]], by_class: bool = True) -> dict[Any, tuple[Any, Any, Any, int]]:
    """{class: (scores, hit, ignored, truth)} of pycocotools at IoU 0.5, from its own evalImgs."""

    def wide(box: Any) -> list[float]:
        return [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()]

    truths = [
        dict(image_id=i + 1, category_id=int(c) + 1, bbox=wide(b), area=float(np.prod(b[2:] - b[:2])),
             iscrowd=int(crowd))
        for i, (_, truth) in enumerate(images) for b, c, crowd in zip(*truth, strict=True)
    ]  # fmt: skip
    detections = [
        dict(image_id=i + 1, category_id=int(c) + 1, bbox=wide(b), score=float(s))
        for i, (found, _) in enumerate(images) for b, c, s in zip(*found, strict=True)
    ]  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        world = COCO()
        world.dataset = dict(
            images=[dict(id=i + 1) for i in range(len(images))],
            annotations=[dict(one, id=i + 1) for i, one in enumerate(truths)],
            categories=[dict(id=i + 1, name=str(i)) for i in range(CLASSES)],
        )
        world.createIndex()
        results = COCO()
        results.dataset = dict(
            world.dataset,
            annotations=[dict(one, id=i + 1, area=float(one["bbox"][2] * one["bbox"][3]), iscrowd=0)
                         for i, one in enumerate(detections)],
        )  # fmt: skip
        results.createIndex()
        evaluation = COCOeval(world, results, "bbox")
        evaluation.params.useCats = int(by_class)
        evaluation.params.iouThrs = np.array([0.5])
        evaluation.params.maxDets = [10_000]
        evaluation.params.areaRng = [[0, 1e10]]
        evaluation.evaluate()
    outcome: dict[Any, list[Any]] = {}
    for each in evaluation.evalImgs:
        if each is None:
            continue
        kept = outcome.setdefault(each["category_id"] - 1 if by_class else "all", [[], [], [], 0])
        ignored = each["dtIgnore"][0].astype(bool)
        kept[0] += list(each["dtScores"])
        kept[1] += list((each["dtMatches"][0] > 0) & ~ignored)
        kept[2] += list(ignored)
        kept[3] += int((np.asarray(each["gtIgnore"]) == 0).sum())
    kinds = (float, bool, bool, int)
    return {
        name: tuple(np.asarray(one, dtype=kind) for one, kind in zip(each, kinds, strict=True))
        for name, each in outcome.items()
    }  # type: ignore[misc]


def assert_same(images: list[tuple[Found, Truth]], by_class: bool) -> None:
    found = ours(images, by_class)
    expected = theirs(images, by_class)
    for name, (scores, hit, ignored, truth) in expected.items():
        mine = found.of_class(name) if by_class else found
        sort, other = np.argsort(mine.scores, kind="stable"), np.argsort(scores, kind="stable")
        assert np.allclose(mine.scores[sort], scores[other])
        # Scores repeat in other images: the sets of (score, outcome) are what must agree.
        pairs = sorted(zip(mine.scores, mine.hit, ~mine.counted, strict=True))
        assert pairs == sorted(zip(scores, hit, ignored, strict=True)), (name, pairs)
        assert mine.truth.sum() == truth
        result = quality(mine)
        if (~ignored).any():
            assert result.precision == pytest.approx(hit.sum() / (~ignored).sum())
        if truth:
            assert result.recall == pytest.approx(hit.sum() / truth)


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**31), by_class=st.booleans())
def test_every_box_fares_as_in_pycocotools(seed: int, by_class: bool) -> None:
    assert_same(scene(seed), by_class)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_the_mean_iou_is_that_of_pycocotools_matches(seed: int) -> None:
    """By its own IoUs of the pairs that it matched; one image, so that ids are places."""
    from pycocotools import mask

    [(found, truth)] = scene(seed, images=1)
    result = match(found, truth, CLASSES)

    def wide(boxes: Any) -> Any:
        return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)

    if not result.hit.any():
        return
    shares = mask.iou(wide(found.boxes), wide(truth.boxes), truth.crowd.astype(np.uint8).tolist())
    for box in np.flatnonzero(result.hit):
        same = (truth.classes == found.classes[box]) & ~truth.crowd
        assert np.isclose(shares[box][same], result.iou[box]).any()
    assert quality(result).mean_iou == pytest.approx(result.iou[result.hit].mean())
    assert (result.iou[result.hit] >= 0.5).all() and (result.iou[~result.hit] == 0).all()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), bound=st.floats(0.1, 0.5))
def test_a_curve_is_what_matching_above_each_bound_gives(seed: int, bound: float) -> None:
    images = scene(seed)
    line = curve(ours(images))
    above = [
        (Found(*(each[found.scores >= bound] for each in found)), truth)
        for found, truth in images
    ]  # fmt: skip
    expected = quality(ours(above))
    reached = np.flatnonzero(line.scores >= bound)
    if len(reached):
        last = reached[-1]
        assert line.precision[last] == pytest.approx(expected.precision, nan_ok=True)
        assert line.recall[last] == pytest.approx(expected.recall, nan_ok=True)


def test_known_boxes() -> None:
    boxes = np.array([[0, 0, 10, 10], [20, 0, 30, 10.0], [50, 50, 99, 99]])
    truth = Truth(boxes, np.array([0, 1, 0]), np.array([False, False, True]))
    found = Found(
        np.array([[0, 0, 10, 8], [0, 0, 10, 10], [20, 0, 30, 10], [60, 60, 70, 70], [80, 0, 90, 9.0]]),
        np.array([0, 0, 0, 0, 1]),
        np.array([0.9, 0.8, 0.7, 0.6, 0.5]),
    )
    result = match(found, truth, CLASSES)
    assert result.hit.tolist() == [True, False, False, False, False], "the surer box takes the truth"
    assert result.counted.tolist() == [True, True, True, False, True], (
        "what lies in a crowd counts neither way"
    )
    assert result.truth.tolist() == [1, 1, 0]
    assert quality(result)[:3] == pytest.approx((1 / 4, 1 / 2, 0.8))
    without = match(found, truth, CLASSES, by_class=False)
    assert without.hit.tolist() == [True, False, True, False, False]
    assert quality(without.of_class(1)).recall == 0


def test_without_truth_there_are_counts_alone() -> None:
    found = Found(np.array([[0, 0, 10.0, 8]] * 3), np.array([0, 0, 2]), np.array([0.9, 0.8, 0.7]))
    result = joined([match(found, None, CLASSES)] * 2, CLASSES)
    precision, recall, iou, boxes = quality(result)
    assert np.isnan([precision, recall, iou]).all() and boxes == 3
    assert np.isnan(quality(joined([], CLASSES))[:3]).all()
