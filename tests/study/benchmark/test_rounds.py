"""Turns and ratios in closed form, with a clock that counts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from ssod.study.benchmark import rounds


@dataclass
class Fake:
    """A contestant whose steps take as long as they are told."""

    name: str
    costs: list[float]  # of each step, the one that isn't counted included
    clock: list[float]
    log: list[Any] = field(default_factory=list)

    def prepare(self, seed: int) -> None:
        self.clock[0] += 100.0  # never part of a step
        self.log.append((self.name, seed))

    def step(self) -> None:
        self.clock[0] += self.costs.pop(0)


def test_every_round_runs_all_and_begins_with_the_next_one() -> None:
    clock, log = [0.0], list[Any]()
    runners = [Fake(name, [9.0, 1.0, 2.0, 3.0], clock, log) for name in "abc"]
    seconds = rounds.interleave(runners, 3, clock=lambda: clock[0])
    assert seconds == {name: [1.0, 2.0, 3.0] for name in "abc"}
    assert "".join(name for name, _ in log) == "abc" + "bca" + "cab" + "abc"
    assert [seed for _, seed in log] == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3


def test_the_device_is_waited_for_on_both_sides_of_a_step() -> None:
    clock, busy = [0.0], [5.0]

    def wait() -> None:
        clock[0] += busy[0]
        busy[0] = 0.0

    class Late(Fake):
        def step(self) -> None:
            busy[0] = 2.0  # what it has issued

    assert rounds.interleave([Late("a", [], clock)], 1, wait, lambda: clock[0]) == {"a": [2.0]}


def test_a_ratio_is_the_median_of_the_rounds_ratios_not_the_ratio_of_medians() -> None:
    seconds = {"a": [1.0, 10.0, 3.0], "b": [2.0, 5.0, 4.0]}
    found = rounds.ratio(seconds, "a", "b")
    assert found == {"median": 0.75, "low": 0.5, "high": 2.0, "rounds": [0.5, 2.0, 0.75]}
    assert rounds.summary([4.0, 1.0])["median"] == 2.5


NAMES: list[tuple[list[str], list[str]]] = [
    (["supervised", "method"], ["method/supervised"]),
    (
        ["supervised", "method", "mmdet_supervised", "mmdet_method"],
        [
            "method/supervised",
            "method/mmdet_supervised",
            "method/mmdet_method",
            "supervised/mmdet_supervised",
            "mmdet_method/mmdet_supervised",
        ],
    ),
    (
        ["supervised", "method", "method_amp", "mmdet_method"],
        [
            "method/supervised",
            "method_amp/supervised",
            "method/mmdet_method",
            "method_amp/mmdet_method",
        ],
    ),
    (["supervised", "mmdet_supervised"], ["supervised/mmdet_supervised"]),
    (
        ["method", "mmdet_supervised_ssod_kernels", "mmdet_method_ssod_kernels"],
        [
            "method/mmdet_supervised_ssod_kernels",
            "method/mmdet_method_ssod_kernels",
            "mmdet_method_ssod_kernels/mmdet_supervised_ssod_kernels",
        ],
    ),
]


@pytest.mark.parametrize(("names", "expected"), NAMES, ids=[" ".join(row[0]) for row in NAMES])
def test_which_ratios_there_are(names: list[str], expected: list[str]) -> None:
    assert list(rounds.ratios({name: [1.0] for name in names})) == expected
