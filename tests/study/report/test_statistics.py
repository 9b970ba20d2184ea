"""Mean, deviation and paired interval: worked out by hand, and against scipy."""

from __future__ import annotations

import random

import pytest
from scipy import stats

from ssod.study.report.statistics import Gain, Summary, paired_gain, summarize

# Three seeds. The method's AP is 42, 45, 48, its twins' 40, 41, 45.
METHOD, TWINS = (42.0, 45.0, 48.0), (40.0, 41.0, 45.0)


def test_by_hand() -> None:
    """Mean (42 + 45 + 48) / 3 = 45; deviations -3, 0, 3, their squares 18 in sum, 18 / 2 = 9, so s = 3.

    Differences 2, 4, 3: mean 3; deviations -1, 1, 0, squares 2 in sum, 2 / 2 = 1, so s = 1. Of Student's t
    with 2 degrees of freedom the table gives t(0.975) = 4.303; t · s / √3 = 4.303 / 1.7321 = 2.484. So the
    interval is 0.516 to 5.484.
    """
    assert summarize(METHOD) == Summary(3, 45.0, 3.0)
    gain = paired_gain([one - two for one, two in zip(METHOD, TWINS, strict=True)])
    assert gain is not None and gain.differences == (2.0, 4.0, 3.0) and gain.mean == 3.0
    assert (gain.low, gain.high) == (pytest.approx(0.516, abs=5e-4), pytest.approx(5.484, abs=5e-4))


@pytest.mark.parametrize("n", [2, 3, 5, 30])
def test_the_interval_is_scipys(n: int) -> None:
    rng = random.Random(n)
    one, two = ([rng.gauss(mean, 2.0) for _ in range(n)] for mean in (45, 41))
    gain = paired_gain([a - b for a, b in zip(one, two, strict=True)])
    expected = stats.ttest_rel(one, two).confidence_interval(0.95)
    assert gain is not None
    assert (gain.low, gain.high) == (pytest.approx(expected.low), pytest.approx(expected.high))


def test_one_value_has_no_deviation_and_one_pair_no_interval() -> None:
    assert summarize([41.5]) == Summary(1, 41.5, None)
    assert paired_gain([1.5]) == Gain((1.5,), 1.5, None, None)
    assert paired_gain([1.5]).n == 1  # type: ignore[union-attr]


def test_nothing_gives_nothing() -> None:
    assert summarize([]) is None and paired_gain([]) is None


def test_equal_differences_have_an_interval_without_width() -> None:
    assert paired_gain([2.0, 2.0, 2.0]) == Gain((2.0, 2.0, 2.0), 2.0, 2.0, 2.0)
