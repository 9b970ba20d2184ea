"""Why no pseudo label is left: which stage takes the last one away, and what to change, in one line."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ssod.core.schedules import Ramp
from ssod.engine.telemetry.matching import quality
from ssod.engine.telemetry.measure import FLOOR, Measurement, labeler_of

LEARNERS = {"rpn": "RPN", "cls": "classification", "box": "box regression", "labels": "all losses"}
# Where the methods here keep the policy of each part, and the option that sets it.
POLICIES = {
    "rpn": ("for_rpn", "rpn_min_score"),
    "cls": ("for_class", "cls_min_score"),
    "box": ("for_box", "box_min_score"),
    "labels": ("selection", "min_score"),
}
ENOUGH = 10  # boxes with known truth before classes are called wrong


@dataclass(frozen=True)
class Evidence:
    """What is known of a method that teaches nothing.

    boxes: {stage: boxes in all}, "candidates", "projected" if there is such a stage, and the parts · images:
    looked at · top: the labeler's highest score, nan without a detection · top_projected: of what the strong
    view shows · student_top: the student's highest where a teacher labels, else nan · bounds: {part or
    "candidates": (option, score)} · decay: the average's · step: iterations so far · least_spread,
    spread_bound: of the candidates, nan where none is measured · min_visible: the option.
    """

    boxes: dict[str, int]
    images: int
    top: float = math.nan
    top_projected: float = math.nan
    student_top: float = math.nan
    bounds: dict[str, tuple[str, float]] = field(default_factory=dict)
    decay: float = math.nan
    step: int = 0
    least_spread: float = math.nan
    spread_bound: float = math.nan
    min_visible: float = 0.0


def burn_in(ramp: Ramp, step: int, max_iters: int) -> str | None:
    """A sentence where no image teaches yet at a 0-based step, None where λ_u is above 0."""
    if ramp(step) > 0:
        return None
    if ramp.value == 0:
        return "unlabeled images teach nothing: model.method.unsup_weight is 0; set it above"
    if step >= ramp.start:  # the first step of a ramp
        return None
    late = f", and the run ends at {max_iters} before that: lower it" if ramp.start >= max_iters else ""
    return (
        f"unlabeled images teach nothing yet: burn-in until iteration {ramp.start} "
        f"(model.method.unsup_weight.start){late}"
    )


def empty_parts(found: Measurement) -> list[str]:
    """The parts that no box is left for."""
    return [part for part in LEARNERS if part in found.parts and not len(found.parts[part].scores)]


def explain(evidence: Evidence) -> dict[str, str]:
    """{kind of cause and parts: sentence}, one for all parts without a box that have the same cause."""
    causes = {part: _cause(part, evidence) for part in LEARNERS if evidence.boxes.get(part) == 0}
    sentences = {}
    for cause in dict.fromkeys(causes.values()):
        together = [part for part in causes if causes[part] == cause]
        names = " and ".join(LEARNERS[part] for part in together)
        sentences[f"{cause.kind} {names}"] = f"no pseudo label is left for {names}: {cause.text}"
    return sentences


class Cause(NamedTuple):
    """What takes the last box away: "nothing", "threshold", "projection", "spread" or "lag"; and in words."""

    kind: str
    text: str


def _cause(part: str, known: Evidence) -> Cause:
    """What takes the last box of a part away, and the mending."""
    if known.boxes["candidates"] == 0:
        return _nothing_found(known)
    if known.boxes.get("projected", 1) == 0:
        option = f", or lower min_visible={known.min_visible:g}" if known.min_visible else ""
        return Cause(
            "projection",
            f"of {known.boxes['candidates']} boxes on {known.images} images the projection into the strong "
            f"view loses all: look at the views with tools/show_views.py{option}",
        )
    if part == "box" and math.isfinite(known.spread_bound):
        return Cause(
            "spread",
            f"the jitter bound removes all: the least spread is {known.least_spread:.3f}, box_max_spread "
            f"{known.spread_bound:g}: raise it to {_above(known.least_spread):g}, or train longer before "
            "labels teach (unsup_weight.start)",
        )
    top = known.top_projected if math.isfinite(known.top_projected) else known.top
    option, bound = known.bounds.get(part, ("the method's bound", math.nan))
    return _lag(known, bound) or _too_high(top, option, bound)


def _nothing_found(known: Evidence) -> Cause:
    option, bound = known.bounds.get("candidates", ("the bound", math.nan))
    lag = _lag(known, bound if math.isfinite(bound) else FLOOR)
    if lag is not None:
        return lag
    if math.isnan(known.top):
        return Cause(
            "nothing",
            f"the labeler finds nothing with a score above {FLOOR} on {known.images} images: train longer on "
            "labels alone (unsup_weight.start)",
        )
    return _too_high(known.top, option, bound)


def _too_high(top: float, option: str, bound: float) -> Cause:
    if math.isnan(bound):
        text = f"the highest score is {top:.2f}, below {option}: lower the bound or train longer first"
        return Cause("threshold", text)
    return Cause(
        "threshold",
        f"the threshold is too high: the highest score is {top:.2f}, {option} {bound:g}: lower it to "
        f"{math.floor(top * 20) / 20:g}, or train longer before labels teach (unsup_weight.start)",
    )


def _lag(known: Evidence, bound: float) -> Cause | None:
    """A sentence where the student is sure of what the teacher, its average, is not sure of yet."""
    highest = 0.0 if math.isnan(known.top) else known.top
    if not (known.student_top > bound >= highest):
        return None
    window = round(1 / (1 - known.decay)) if known.decay < 1 else 0
    average = (
        f": decay {known.decay:g} averages {window} iterations, of {known.step}; lower model.teacher.decay"
        if window
        else ""
    )
    return Cause(
        "lag",
        f"the teacher lags behind: its highest score is {highest:.2f}, the student's "
        f"{known.student_top:.2f}, the bound {bound:g}{average}",
    )


def _above(value: float) -> float:
    """The next two-digit number above."""
    return math.ceil(value * 100 + 1e-9) / 100


def wrong_classes(found: Measurement) -> str | None:
    """A sentence where boxes lie on objects, but under other names than the truth's; None elsewhere."""
    if found.head is None or int(found.parts[found.head].counted.sum()) < ENOUGH:
        return None
    named, places = quality(found.parts[found.head]).precision, quality(found.agnostic).precision
    if not (places >= 0.5 and named <= 0.1):
        return None
    return (
        f"pseudo labels have wrong classes: {places:.0%} of the boxes lie on an object, {named:.0%} have its "
        "class too: do the classes of model, labels and hidden truth have the same order?"
    )


def gather(model: Any, found: Measurement, student_top: float, step: int) -> Evidence:
    """The evidence of a `SemiDetector` after a measurement."""
    method = model.method
    boxes = {name: len(each.scores) for name, each in found.parts.items()}
    spread = found.spread.get("spread", np.zeros(0))
    measured = len(spread) > 0
    in_strong = found.parts.get("projected", found.parts["candidates"])
    return Evidence(
        boxes=boxes,
        images=found.images,
        top=_top(found.detections.scores),
        top_projected=_top(in_strong.scores),
        student_top=student_top,
        bounds=dict(bounds_of(method)),
        decay=float(getattr(model.policy, "decay", math.nan)) if labeler_of(model) == "teacher" else math.nan,
        step=step,
        least_spread=float(np.min(spread)) if measured else math.nan,
        spread_bound=float(method.box_max_spread) if measured else math.nan,
        min_visible=float(getattr(method, "min_visible", 0.0)),
    )


def bounds_of(method: Any) -> Iterable[tuple[str, tuple[str, float]]]:
    """(part, (option, score)) of the score bounds that a method has; the candidates' is its floor."""
    if hasattr(method, "floor"):
        yield "candidates", ("floor", float(method.floor))
    for part, (attribute, option) in POLICIES.items():
        policy = getattr(method, attribute, None)
        if policy is None and part == "box":
            policy, option = getattr(method, "for_class", None), "cls_min_score"
        score = bound_of(policy)
        if math.isfinite(score):
            yield part, (option, score)
            if part == "labels" and not hasattr(method, "floor") and not getattr(method, "needs_file", False):
                yield "candidates", (option, score)


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
