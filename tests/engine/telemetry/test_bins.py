"""Calibration bins and rank correlation, against counting one by one and SciPy."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from ssod.engine.telemetry.bins import calibration_error, rank_correlation, reliability
from ssod.engine.telemetry.matching import Matches


def matches(scores: list[float], hit: list[bool], counted: list[bool] | None = None) -> Matches:
    number = len(scores)
    kept = np.ones(number, bool) if counted is None else np.array(counted, bool)
    return Matches(
        np.array(scores),
        np.zeros(number, np.int64),
        np.array(hit, bool),
        kept,
        np.zeros(number),
        np.array([9]),
        1,
    )


def test_bins_hold_scores_precision_and_counts() -> None:
    found = matches([0.05, 0.1, 0.12, 0.95, 1.0, 0.91], [True, False, True, True, True, False])
    bins = reliability(found)
    assert [each["count"] for each in bins] == [2, 1, 0, 0, 0, 0, 0, 0, 0, 3]
    first, last = bins[0], bins[-1]
    assert first["score"] == pytest.approx(0.075) and first["precision"] == 0.5  # 0.1 is of the lower bin
    assert last["precision"] == pytest.approx(2 / 3) and (last["low"], last["high"]) == (0.9, 1.0)
    assert bins[4] == dict(low=0.4, high=0.5, score=None, precision=None, count=0, known=0)


def test_boxes_without_known_truth_are_counted_and_no_more() -> None:
    bins = reliability(matches([0.55, 0.56], [True, False], [True, False]))
    assert bins[5]["count"] == 2 and bins[5]["known"] == 1 and bins[5]["precision"] == 1.0
    assert bins[5]["score"] == pytest.approx(0.55), "of the box that precision is about"
    assert calibration_error(matches([0.5], [False], [False])) is None
    alone = reliability(matches([0.51, 0.53], [False, False], [False, False]))[5]
    assert alone["score"] == pytest.approx(0.52) and alone["precision"] is None and alone["known"] == 0


def test_the_error_is_that_of_the_bins() -> None:
    """Whoever computes it from the points of the plot, weighted by the known boxes, gets the same."""
    random = np.random.default_rng(3)
    scores = random.uniform(0, 1, 300)
    counted = random.random(300) < 0.4
    found = matches(scores.tolist(), (counted & (random.random(300) < scores)).tolist(), counted.tolist())
    bins = [each for each in reliability(found) if each["known"]]
    gaps = sum(each["known"] * abs(each["score"] - each["precision"]) for each in bins)
    assert calibration_error(found) == pytest.approx(gaps / counted.sum())


def test_the_error_is_the_mean_gap_between_score_and_precision() -> None:
    random = np.random.default_rng(0)
    scores = random.uniform(0, 1, 400)
    found = matches(scores.tolist(), (random.random(400) < scores**2).tolist())
    expected = 0.0
    for low in np.arange(10) / 10:
        inside = (scores > low) & (scores <= low + 0.1)
        expected += inside.sum() / 400 * abs(scores[inside].mean() - found.hit[inside].mean())
    assert calibration_error(found) == pytest.approx(expected)
    perfect = matches([0.75] * 4, [True, True, True, False])
    assert calibration_error(perfect) == pytest.approx(0)


@pytest.mark.parametrize("ties", [False, True])
def test_rank_correlation_is_spearmans(ties: bool) -> None:
    random = np.random.default_rng(1)
    first = random.normal(size=60)
    second = -first + random.normal(size=60)
    if ties:
        first, second = first.round(), second.round()
    assert rank_correlation(first, second) == pytest.approx(spearmanr(first, second).statistic)
    assert rank_correlation(first, np.ones(60)) is None and rank_correlation(first[:2], second[:2]) is None
