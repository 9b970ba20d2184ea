"""Ramp: its value at named steps, in closed form."""

import math
from typing import Any

import pytest

from ssod.core.schedules import Ramp

VALUES: list[tuple[str, Ramp, dict[int, float]]] = [
    ("constant", Ramp(4.0), {0: 4.0, 1: 4.0, 10**7: 4.0}),
    ("burn-in jumps", Ramp(4.0, start=100), {0: 0.0, 99: 0.0, 100: 4.0, 101: 4.0}),
    ("linear", Ramp(2.0, length=10), {0: 0.0, 1: 0.2, 5: 1.0, 9: 1.8, 10: 2.0, 99: 2.0}),
    ("linear after burn-in", Ramp(2.0, start=5, length=10), {4: 0.0, 5: 0.0, 10: 1.0, 15: 2.0}),
    (
        "sigmoid, Mean Teacher section 3.1",
        Ramp(3.0, length=10, shape="sigmoid"),
        {0: 3 * math.exp(-5), 5: 3 * math.exp(-1.25), 9: 3 * math.exp(-0.05), 10: 3.0},
    ),
    (
        "sigmoid after burn-in",
        Ramp(1.0, start=20, length=4, shape="sigmoid"),
        {19: 0.0, 20: math.exp(-5), 22: math.exp(-1.25), 24: 1.0},
    ),
    ("off", Ramp(0.0, length=5), {0: 0.0, 3: 0.0, 9: 0.0}),
]


@pytest.mark.parametrize(("ramp", "expected"), [row[1:] for row in VALUES], ids=[row[0] for row in VALUES])
def test_value_at_step(ramp: Ramp, expected: dict[int, float]) -> None:
    assert {step: ramp(step) for step in expected} == pytest.approx(expected)


SPECS: list[tuple[str, Any, Ramp]] = [
    ("a number", 4, Ramp(4.0)),
    ("a dict of fields", dict(value=1.0, start=3, length=2, shape="sigmoid"), Ramp(1.0, 3, 2, "sigmoid")),
    ("a Ramp", Ramp(2.0, start=1), Ramp(2.0, start=1)),
]


@pytest.mark.parametrize(("spec", "expected"), [row[1:] for row in SPECS], ids=[row[0] for row in SPECS])
def test_what_a_config_may_hold(spec: Any, expected: Ramp) -> None:
    assert Ramp.of(spec) == expected


WRONG: list[tuple[str, dict[str, Any], type[Exception], str]] = [
    ("negative start", dict(value=1.0, start=-1), ValueError, "can't be negative"),
    ("negative length", dict(value=1.0, length=-1), ValueError, "can't be negative"),
    ("unknown shape", dict(value=1.0, shape="cosine"), ValueError, "'linear' or 'sigmoid', not 'cosine'"),
    ("unknown key", dict(value=1.0, burn_in=9), TypeError, "burn_in"),
    ("no value", dict(start=9), TypeError, "value"),
]


@pytest.mark.parametrize(("spec", "error", "message"), [r[1:] for r in WRONG], ids=[r[0] for r in WRONG])
def test_wrong_specs_fail(spec: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Ramp.of(spec)
