"""Phases by a clock that counts: each moment is one phase's, and nothing stays exchanged."""

from __future__ import annotations

from typing import Any

import pytest
from reference import detectors

from ssod.models import frcnn
from ssod.models.jitter import BoxJitter
from ssod.study.benchmark import phases
from ssod.study.benchmark.phases import JITTER, OTHER, PHASES, STUDENT_TRUNK, TEACHER_BOXES, TEACHER_TRUNK


@pytest.fixture
def clock() -> tuple[phases.PhaseClock, list[float]]:
    time = [0.0]
    return phases.PhaseClock(clock=lambda: time[0]), time


def test_time_belongs_to_the_innermost_phase(clock: tuple[phases.PhaseClock, list[float]]) -> None:
    phase, time = clock[0].phase, clock[1]
    time[0] = 50.0  # before a step: nobody's
    with phase(OTHER):
        time[0] += 1
        with phase("losses"):
            time[0] += 2
            with phase("assignment"):
                time[0] += 4
            time[0] += 8
        time[0] += 16
    time[0] += 1000
    assert clock[0].seconds == {OTHER: 17.0, "losses": 10.0, "assignment": 4.0}
    assert sum(clock[0].seconds.values()) == 31.0


def test_what_a_whole_phase_calls_is_its_own_but_for_the_trunk(
    clock: tuple[phases.PhaseClock, list[float]],
) -> None:
    phase, time = clock[0].phase, clock[1]
    with phase(OTHER), phase(TEACHER_BOXES):
        with phase("RPN"):
            time[0] += 1
        with phase(TEACHER_TRUNK):
            time[0] += 2
        time[0] += 4
    assert clock[0].seconds == {OTHER: 0.0, TEACHER_BOXES: 5.0, TEACHER_TRUNK: 2.0}


def test_a_phase_ends_with_an_exception(clock: tuple[phases.PhaseClock, list[float]]) -> None:
    with pytest.raises(KeyError), clock[0].phase("RPN"):
        clock[1][0] += 3
        raise KeyError
    assert clock[0].now is None
    assert clock[0].seconds == {"RPN": 3.0}


def test_the_device_is_waited_for_where_a_phase_ends() -> None:
    time, waits = [0.0], [0]

    def wait() -> None:
        waits[0] += 1
        time[0] += 1.0

    clock = phases.PhaseClock(wait, lambda: time[0])
    with clock.phase(OTHER), clock.phase("RPN"):
        pass
    assert waits[0] == 4
    assert clock.seconds == {OTHER: 2.0, "RPN": 1.0}


class Noted(phases.PhaseClock):
    """A clock that keeps the order in which phases begin."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[str] = []

    def phase(self, name: str) -> Any:
        inside = super().phase(name)
        if not (self.now in phases.WHOLE and name != TEACHER_TRUNK) and self.begun[-1:] != [name]:
            self.begun.append(name)
        return inside


def test_a_soft_teacher_step_has_every_phase_in_the_methods_order(registered: None) -> None:
    from mmengine.optim import build_optim_wrapper

    model = detectors.semi_detector(
        dict(type="SoftTeacher", floor=0.3, rpn_min_score=0.4, cls_min_score=0.4), dict(type="EMATeacher")
    )
    model.start()
    wrapper = build_optim_wrapper(
        model, dict(type="GuardedOptimWrapper", optimizer=dict(type="SGD", lr=1e-3), precision="float32")
    )
    before = {name: getattr(frcnn, name) for name in ("features", "detect", "roi_losses", "assign")}
    measure, clock = BoxJitter.measure, Noted()
    batch = detectors.semi_batch()
    with phases.phases_of(model, wrapper, clock), clock.phase(OTHER):
        loss, _ = model.parse_losses(model.loss(batch))
        wrapper.update_params(loss)
        model.after_step(5)
    assert set(clock.seconds) == set(PHASES) - {"preprocessing"}
    first = [name for place, name in enumerate(clock.begun) if name not in clock.begun[:place]]
    expected = [OTHER, TEACHER_BOXES, TEACHER_TRUNK, JITTER, STUDENT_TRUNK, "RPN", "assignment", "RoI heads"]
    assert first == [*expected, "soft weights", "losses", "backward", "optimizer", "EMA"]
    assert all(getattr(frcnn, name) is function for name, function in before.items())
    assert BoxJitter.measure is measure
    for owner, name in ((model, "after_step"), (model.method, "soften"), (wrapper, "step")):
        assert name not in vars(owner)
