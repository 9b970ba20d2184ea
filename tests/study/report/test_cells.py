"""How numbers are written."""

from __future__ import annotations

import pytest

from ssod.study.report.cells import interval, number, signed, spread
from ssod.study.report.statistics import Gain, Summary


@pytest.mark.parametrize(
    ("value", "shown"),
    [(4.84, "+4.8"), (-0.06, "−0.1"), (0.04, "0.0"), (-0.04, "0.0"), (0.0, "0.0"), (12.0, "+12.0")],
)
def test_gains_have_a_sign(value: float, shown: str) -> None:
    assert signed(value) == shown


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [
        (1.2990, 8.3893, "[+1.3, +8.4]"),
        (-0.013, 4.2, "[−0.01, +4.2]"),
        (0.013, 4.2, "[+0.01, +4.2]"),
        (0.0, 0.0, "[0.0, 0.0]"),
    ],
)
def test_an_interval_tells_on_which_side_of_zero_it_ends(low: float, high: float, shown: str) -> None:
    assert interval(Gain((1.0, 2.0), 1.5, low, high)) == shown


def test_means_and_what_is_missing() -> None:
    assert [number(41.25, 1), number(None), spread(None)] == ["41.2", "–", "–"]
    assert spread(Summary(3, 43.14, 1.46)) == "43.1 ± 1.5" and spread(Summary(1, 43.14, None)) == "43.1"
