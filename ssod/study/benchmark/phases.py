"""Where a step's time goes: each moment belongs to one phase, so that the phases add up to the step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

from torch.profiler import record_function

from ssod.models import any_detector, frcnn
from ssod.models.jitter import BoxJitter

TEACHER_TRUNK, STUDENT_TRUNK, OTHER = "teacher trunk", "student trunk", "other"
TEACHER_BOXES, JITTER, SOFT = "teacher boxes", "jitter", "soft weights"
PHASES = (
    "preprocessing",
    TEACHER_TRUNK,
    TEACHER_BOXES,
    JITTER,
    SOFT,
    STUDENT_TRUNK,
    "RPN",
    "assignment",
    "RoI heads",
    "losses",
    "backward",
    "optimizer",
    "EMA",
    OTHER,
)
WHOLE = frozenset({TEACHER_BOXES, JITTER, SOFT})  # what they call is theirs, but for the trunk
Namer = Callable[..., str]


class PhaseClock:
    """Seconds of each phase, without those of the phases within it.

    wait: returns when the device has nothing left to do, so that what a phase has issued is counted in it.
    """

    def __init__(
        self, wait: Callable[[], object] = lambda: None, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.seconds: dict[str, float] = {}
        self._open: list[str] = []
        self._wait, self._clock = wait, clock
        self._mark = 0.0

    @property
    def now(self) -> str | None:
        """The innermost phase; None outside of a step."""
        return self._open[-1] if self._open else None

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """A block that belongs to a phase; inside of one of WHOLE, to that one."""
        if self.now in WHOLE and name != TEACHER_TRUNK:
            yield
            return
        self._charge()
        self._open.append(name)
        try:
            with record_function(name):
                yield
        finally:
            self._charge()
            self._open.pop()

    def _charge(self) -> None:
        """Gives the time since the last change to the innermost phase."""
        self._wait()
        now = self._clock()
        if self._open:
            self.seconds[self._open[-1]] = self.seconds.get(self._open[-1], 0.0) + now - self._mark
        self._mark = now

    def wrapped(self, function: Callable[..., Any], name: str | Namer) -> Callable[..., Any]:
        """The function as a phase; name: the phase, or what tells it from the arguments."""

        def run(*args: Any, **kwargs: Any) -> Any:
            with self.phase(name if isinstance(name, str) else name(*args)):
                return function(*args, **kwargs)

        return run


@contextmanager
def phases_of(model: Any, optimizer: Any, clock: PhaseClock) -> Iterator[None]:
    """A block in which the parts of a SemiDetector's step are phases of the clock.

    They are functions and methods exchanged for as long as the block lasts; outside of it nothing is
    measured, and nothing costs.
    """

    def trunk(detector: Any, *_: Any) -> str:
        teachers = clock.now in (TEACHER_BOXES, TEACHER_TRUNK) or detector is model.teacher
        return TEACHER_TRUNK if teachers else STUDENT_TRUNK

    def either(phase: str) -> Namer:
        return lambda detector, *_: TEACHER_BOXES if detector is model.teacher else phase

    parts: list[tuple[Any, str, str | Namer]] = [
        (model.data_preprocessor, "forward", "preprocessing"),
        (frcnn, "features", trunk),
        (frcnn, "detect", TEACHER_BOXES),
        (any_detector, "detect", TEACHER_BOXES),
        (BoxJitter, "measure", JITTER),
        (frcnn, "class_probabilities", SOFT),
        (frcnn, "rpn_forward", either("RPN")),
        (frcnn, "proposals_of_views", either("RPN")),
        (frcnn, "sample_rois", "assignment"),
        (frcnn, "assign", "assignment"),
        (frcnn, "sample", "assignment"),
        (frcnn, "roi_forward", either("RoI heads")),
        (frcnn, "rpn_losses", "losses"),
        (frcnn, "roi_losses", "losses"),
        (any_detector, "losses", "losses"),
        (model, "parse_losses", "losses"),
        (optimizer, "backward", "backward"),
        (optimizer, "step", "optimizer"),
        (optimizer, "zero_grad", "optimizer"),
        (model, "after_step", "EMA"),
    ]
    if hasattr(model.method, "soften"):
        parts.append((model.method, "soften", SOFT))
    for network in (model.student, model.teacher):
        if network is not None:
            parts.append((network, "extract_feat", lambda *_, network=network: trunk(network)))
    with ExitStack() as stack:
        for owner, name, phase in parts:
            function = clock.wrapped(getattr(owner, name), phase)
            stack.enter_context(mock.patch.object(owner, name, function))
        yield


def measure(
    contestant: Any,
    rounds: int,
    wait: Callable[[], object],
    timer: Callable[[], float] = time.perf_counter,
) -> dict[str, dict[str, float]]:
    """Seconds a step and share of each phase, in the order of PHASES: {phase: {"seconds", "share"}}.

    The means over rounds, after one that is not counted; on a GPU the host waits wherever a phase ends, so
    the sum is longer than a step.
    """
    clock = PhaseClock(wait, timer)
    with phases_of(contestant.model, contestant.optimizer, clock):
        for turn in range(rounds + 1):
            contestant.prepare(turn)
            if turn == 1:
                clock.seconds.clear()
            with clock.phase(OTHER):
                contestant.step()
    total = sum(clock.seconds.values())
    return {
        name: {"seconds": clock.seconds[name] / rounds, "share": clock.seconds[name] / total}
        for name in PHASES
        if name in clock.seconds
    }
