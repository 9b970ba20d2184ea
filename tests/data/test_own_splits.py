"""Splits of one's own data: exact counts, no overlap, every class its share."""

from __future__ import annotations

from collections.abc import Callable
from decimal import ROUND_HALF_UP, Decimal
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssod.data.own_splits import Amount, Incidence, held_out_part, num_of, own_split, parse_percent
from ssod.data.split_protocols import Parts
from ssod.errors import UserError

PERCENT = st.decimals("0.01", "100", places=2).map(lambda each: Decimal(f"{each.normalize():f}"))


def incidence_of(shown: list[set[int]], num_classes: int) -> Incidence:
    """Images that show these classes, each twice."""
    pairs = [(image, each) for image, classes in enumerate(shown) for each in sorted(classes)] * 2
    images, classes = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return Incidence(images, classes, len(shown), [f"class {n}" for n in range(num_classes)])


@st.composite
def data(draw: Callable[..., Any]) -> tuple[list[set[int]], int]:
    """Up to 60 images of up to 5 classes, some with none, classes rare and common."""
    num_classes = draw(st.integers(1, 5))
    images = st.sets(st.integers(0, num_classes - 1), max_size=num_classes)
    return draw(st.lists(images, min_size=1, max_size=60)), num_classes


def assert_parts(parts: Parts, num_images: int) -> None:
    """Every image is in exactly one of three parts, and positions ascend."""
    each = [parts.labeled, parts.unlabeled, parts.held_out]
    np.testing.assert_array_equal(np.sort(np.concatenate(each)), np.arange(num_images))
    assert all((np.diff(part) > 0).all() for part in each) and len(parts.left_out) == 0


def rounded(percent: Decimal, total: int) -> int:
    return max(1, int((percent * total / 100).quantize(Decimal(1), ROUND_HALF_UP)))


@pytest.mark.parametrize(
    ("percent", "total", "expected"),
    [
        ("10", 118_287, 11_829),
        ("0.01", 118_287, 12),
        ("0.01", 10, 1),  # never none
        ("100", 7, 7),
        ("2.5", 20, 1),  # 0.5, up
        ("12.5", 20, 3),  # 2.5, up
        ("0.07", 10_000, 7),  # 0.07 / 100 * 10000 is 7.000000000000001 in floating point
        ("0.57", 10_000, 57),  # 56.99999999999999
        ("1.15", 10_000, 115),  # 114.99999999999999
    ],
)
def test_rounding(percent: str, total: int, expected: int) -> None:
    assert num_of(Decimal(percent), total) == expected


@settings(max_examples=150, deadline=None)
@given(
    data(), PERCENT, st.integers(0, 5), st.integers(0, 3), st.booleans(), st.sampled_from(["0", "0.5", "30"])
)
def test_percentages(
    images: tuple[list[set[int]], int], percent: Decimal, fold: int, seed: int, stratified: bool, aside: str
) -> None:
    shown, num_classes = images
    incidence, total = incidence_of(shown, num_classes), len(shown)
    num_aside = rounded(Decimal(aside), total) if aside != "0" else 0
    if num_aside >= total:
        with pytest.raises(UserError, match="leaves none"):
            held_out_part(incidence, Decimal(aside), seed, stratified)
        return
    held_out = held_out_part(incidence, Decimal(aside), seed, stratified)
    arguments = (incidence, Amount(percent=percent), fold, seed, held_out, stratified)
    parts = own_split(*arguments)
    assert_parts(parts, total)
    assert len(parts.held_out) == num_aside
    assert len(parts.labeled) == rounded(percent, total - num_aside)
    again = own_split(*arguments)
    np.testing.assert_array_equal(parts.labeled, again.labeled)
    np.testing.assert_array_equal(parts.held_out, held_out)


@settings(max_examples=80, deadline=None)
@given(data(), st.integers(-1, 70), st.booleans())
def test_counts(images: tuple[list[set[int]], int], count: int, stratified: bool) -> None:
    shown, num_classes = images
    incidence = incidence_of(shown, num_classes)
    if not 1 <= count <= len(shown):
        with pytest.raises(UserError, match=f"--count {count}: give 1 to {len(shown)}"):
            own_split(incidence, Amount(count=count), 1, stratified=stratified)
        return
    parts = own_split(incidence, Amount(count=count), 1, stratified=stratified)
    assert len(parts.labeled) == count
    assert_parts(parts, len(shown))


@settings(max_examples=100, deadline=None)
@given(data(), st.integers(0, 6))
def test_images_per_class(images: tuple[list[set[int]], int], number: int) -> None:
    """Each class that is there is shown by enough images, and the last one added was needed."""
    shown, num_classes = images
    counts = [sum(each in classes for classes in shown) for each in range(num_classes)]
    amount = Amount(per_class=number)
    if number < 1 or not any(counts) or any(0 < count < number for count in counts):
        with pytest.raises(UserError, match=f"--per-class {number}: "):
            own_split(incidence_of(shown, num_classes), amount, 1)
        return
    parts = own_split(incidence_of(shown, num_classes), amount, 1)
    assert_parts(parts, len(shown))
    labeled = [shown[image] for image in parts.labeled.tolist()]
    have = [sum(each in classes for classes in labeled) for each in range(num_classes)]
    assert all(found >= number for found, count in zip(have, counts, strict=True) if count)
    assert len(labeled) <= number * sum(count > 0 for count in counts)
    assert all(labeled), "an image without a box shows no class"


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=2, max_size=80), st.integers(1, 99), st.integers(0, 3))
def test_stratified_parts_have_the_shares_of_the_file(of_image: list[int], percent: int, fold: int) -> None:
    """With one class an image, no class is more than an image away from its share."""
    incidence = incidence_of([{each} for each in of_image], 5)
    labeled = own_split(incidence, Amount(percent=Decimal(percent)), fold, stratified=True).labeled
    counts = np.bincount(of_image, minlength=5)
    found = np.bincount(np.asarray(of_image)[labeled], minlength=5)
    assert np.abs(found - counts * len(labeled) / len(of_image)).max() <= 1.0 + 1e-9


def test_stratified_keeps_a_rare_class_that_chance_would_lose() -> None:
    shown = [{1} if image % 10 == 0 else {0} for image in range(200)]
    incidence = incidence_of(shown, 2)

    def rare(stratified: bool) -> set[int]:
        parts = [own_split(incidence, Amount(count=20), fold, stratified=stratified) for fold in range(20)]
        return {sum(1 in shown[image] for image in each.labeled.tolist()) for each in parts}

    assert rare(True) == {2} and len(rare(False)) > 2


def test_smaller_percentages_are_contained_in_larger_ones_and_folds_differ() -> None:
    incidence = incidence_of([{0}] * 500, 1)
    drawn = [own_split(incidence, Amount(percent=Decimal(p)), 1).labeled for p in ("1", "5", "20", "90")]
    assert all(np.isin(small, large).all() for small, large in pairwise(drawn))
    for other in (dict(fold=2), dict(fold=1, seed=1)):
        labeled = own_split(incidence, Amount(percent=Decimal(20)), **other).labeled
        assert len(np.intersect1d(labeled, drawn[2])) < 50
    aside = [held_out_part(incidence, Decimal(10), seed, False) for seed in (0, 1)]
    assert not np.array_equal(*aside)


def test_the_draw_is_frozen() -> None:
    """Whoever repeats a split in a year gets these images."""
    incidence = incidence_of([{0}] * 30, 1)
    parts = own_split(incidence, Amount(count=4), 1, 0, held_out_part(incidence, Decimal(10), 0, False))
    assert (parts.labeled.tolist(), parts.held_out.tolist()) == ([12, 15, 17, 29], [8, 16, 26])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10", "10"),
        ("10.0", "10"),
        ("0.5", "0.5"),
        ("0.50", "0.5"),
        ("1e1", "10"),
        ("100", "100"),
        (".01", "0.01"),
    ],
)
def test_percent_as_it_is_printed(text: str, expected: str) -> None:
    assert str(Amount(percent=parse_percent(text))) == expected


@pytest.mark.parametrize("text", ["0", "0.009", "100.01", "-1", "nan", "inf", "ten", ""])
def test_percentages_that_are_none(text: str) -> None:
    with pytest.raises(UserError, match=r"give a number from 0\.01 to 100"):
        parse_percent(text)


@pytest.mark.parametrize("options", [dict(fold=-1), dict(fold=2**32), dict(fold=1, seed=-1)])
def test_numbers_that_are_no_seed(options: dict[str, int]) -> None:
    with pytest.raises(UserError, match=r"give numbers from 0 to 2\^32 - 1"):
        own_split(incidence_of([{0}] * 5, 1), Amount(count=1), **options)
