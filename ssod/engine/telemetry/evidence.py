"""What is known of a method when no pseudo label is left: boxes, bounds and the scores that face them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ssod.core.ema import ramped_decay
from ssod.engine.telemetry.measure import Measurement, labeler_of

# Where the methods here keep the policy of each part, and the option that sets it.
POLICIES = {
    "rpn": ("for_rpn", "rpn_min_score"),
    "cls": ("for_class", "cls_min_score"),
    "box": ("for_box", "box_min_score"),
    "labels": ("selection", "min_score"),
}


class Nearest(NamedTuple):
    """The class that comes nearest to a threshold of its own; scores of it alone, nan without a detection."""

    name: str
    top: float
    bound: float
    student_top: float = math.nan


@dataclass(frozen=True)
class Evidence:
    """What is known of a method that teaches nothing.

    boxes: {stage: boxes in all}, "candidates", "projected" if there is such a stage, and the parts · images:
    looked at · top: the labeler's highest score, nan without a detection · top_projected: of what the strong
    view shows · student_top: the student's highest where a teacher labels, else nan · bounds: {part or
    "candidates": (option, score)} · nearest: {part or "candidates": Nearest} where each class has a threshold
    of its own · decay: of the average, at the last step · step: iterations so far · least_spread,
    spread_bound: of the candidates that the strong view shows, nan where none is measured · min_visible: the
    option.
    """

    boxes: dict[str, int]
    images: int
    top: float = math.nan
    top_projected: float = math.nan
    student_top: float = math.nan
    bounds: dict[str, tuple[str, float]] = field(default_factory=dict)
    nearest: dict[str, Nearest] = field(default_factory=dict)
    decay: float = math.nan
    step: int = 0
    least_spread: float = math.nan
    spread_bound: float = math.nan
    min_visible: float = 0.0


def gather(
    model: Any, found: Measurement, student_tops: Any, step: int, classes: Sequence[str] = ()
) -> Evidence:
    """The evidence of a `SemiDetector` after a measurement.

    student_tops: (C,) the student's highest score of each class where a teacher labels, else nan.
    """
    method = model.method
    boxes = {name: len(each.scores) for name, each in found.parts.items()}
    bound = getattr(method, "box_max_spread", None) if len(found.spread.get("spread", ())) else None
    in_strong = found.parts.get("projected", found.parts["candidates"])
    tops = tops_of(found.detections, len(classes)), tops_of(in_strong, len(classes))
    return Evidence(
        boxes=boxes,
        images=found.images,
        top=_top(found.detections.scores),
        top_projected=_top(in_strong.scores),
        student_top=_highest(student_tops),
        bounds=dict(bounds_of(method)),
        nearest=dict(_nearest(method, *tops, student_tops, classes)),
        decay=_decay(model.policy, step) if labeler_of(model) == "teacher" else math.nan,
        step=step,
        least_spread=min((each for each in found.left if not math.isnan(each)), default=math.nan),
        spread_bound=math.nan if bound is None else float(bound),
        min_visible=float(getattr(method, "min_visible", 0.0)),
    )


def _decay(policy: Any, step: int) -> float:
    """That of the last step before a 0-based one: a ramp begins with less than the option says."""
    decay = float(getattr(policy, "decay", math.nan))
    return ramped_decay(decay, max(step - 1, 0)) if getattr(policy, "ramp", False) else decay


def tops_of(found: Any, num_classes: int) -> Any:
    """(C,) the highest score of each class, nan without a box; of anything with `scores` and `classes`."""
    return np.array([_top(found.scores[found.classes == number]) for number in range(num_classes)])


def _highest(tops: Any) -> float:
    return _top(np.asarray(tops)[np.isfinite(tops)])


def _nearest(
    method: Any, tops: Any, tops_projected: Any, student_tops: Any, classes: Sequence[str]
) -> Iterable[tuple[str, Nearest]]:
    """(part, the class that comes nearest to its own threshold), of the policies that have some."""
    for part, policy, _ in _policies(method):
        if not hasattr(policy, "thresholds"):
            continue
        bounds = policy.thresholds().double().cpu().numpy()
        places = {part: tops_projected} | ({"candidates": tops} if _takes_all(method, part) else {})
        for place, highest in places.items():
            if len(highest) == len(bounds) and np.isfinite(highest).any():
                best = int(np.nanargmax(highest - bounds))
                numbers = (highest[best], round(float(bounds[best]), 6), student_tops[best])
                yield place, Nearest(classes[best], *(float(each) for each in numbers))


def bounds_of(method: Any) -> Iterable[tuple[str, tuple[str, float]]]:
    """(part, (option, score)) of the score bounds that a method has; the candidates' is its floor."""
    if hasattr(method, "floor"):
        yield "candidates", ("floor", float(method.floor))
    for part, policy, option in _policies(method):
        score = bound_of(policy)
        if math.isfinite(score):
            yield part, (option, score)
            if _takes_all(method, part):
                yield "candidates", (option, score)


def _policies(method: Any) -> Iterable[tuple[str, Any, str]]:
    """(part, its policy or None, the option that sets it)."""
    for part, (attribute, option) in POLICIES.items():
        policy = getattr(method, attribute, None)
        if policy is None and part == "box":
            policy, option = getattr(method, "for_class", None), "cls_min_score"
        yield part, policy, option


def _takes_all(method: Any, part: str) -> bool:
    """Whether the part's policy is also what candidates pass: of methods without a floor that detect."""
    return part == "labels" and not hasattr(method, "floor") and not getattr(method, "needs_file", False)


def bound_of(policy: Any) -> float:
    """The score that a Selection asks for, the lowest of several; nan for one of another kind."""
    if hasattr(policy, "thresholds"):
        return round(float(policy.thresholds().min()), 6)
    for name in ("high", "min_score"):
        value = getattr(policy, name, None)
        if isinstance(value, int | float):
            return float(value)
    return math.nan


def _top(scores: Any) -> float:
    return float(scores.max()) if len(scores) else math.nan
