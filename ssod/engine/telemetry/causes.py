"""Why no pseudo label is left: which stage takes the last one away, and what to change, in one line."""

from __future__ import annotations

import math
from typing import NamedTuple

from ssod.core.schedules import Ramp
from ssod.engine.telemetry.evidence import Evidence, Nearest
from ssod.engine.telemetry.matching import quality
from ssod.engine.telemetry.measure import FLOOR, Measurement

LEARNERS = {"rpn": "RPN", "cls": "classification", "box": "box regression", "labels": "all losses"}
ENOUGH = 10  # boxes with known truth before classes are called wrong


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
        return _too_wide(known)
    top = known.top_projected if math.isfinite(known.top_projected) else known.top
    option, bound = known.bounds.get(part, ("the method's bound", math.nan))
    if part in known.nearest:
        return _of_class(known, option, known.nearest[part])
    return _lag(known, known.top, known.student_top, bound) or _too_high(top, option, bound)


def _too_wide(known: Evidence) -> Cause:
    raised = f"raise it to {_above(known.least_spread):g}, or " if math.isfinite(known.least_spread) else ""
    return Cause(
        "spread",
        f"the jitter bound removes all: the least spread is {known.least_spread:.3f}, box_max_spread "
        f"{known.spread_bound:g}: {raised}train longer before labels teach (unsup_weight.start)",
    )


def _nothing_found(known: Evidence) -> Cause:
    option, bound = known.bounds.get("candidates", ("the bound", math.nan))
    if "candidates" in known.nearest and not math.isnan(known.top):
        return _of_class(known, option, known.nearest["candidates"])
    lag = _lag(known, known.top, known.student_top, bound if math.isfinite(bound) else FLOOR)
    if lag is not None:
        return lag
    if math.isnan(known.top):
        return Cause(
            "nothing",
            f"the labeler finds nothing with a score above {FLOOR} on {known.images} images: train longer on "
            "labels alone (unsup_weight.start)",
        )
    return _too_high(known.top, option, bound)


def _of_class(known: Evidence, option: str, near: Nearest) -> Cause:
    name = f" of class {near.name}"
    lag = _lag(known, near.top, near.student_top, near.bound, name)
    return lag or _too_high(near.top, option, near.bound, name)


def _too_high(top: float, option: str, bound: float, name: str = "") -> Cause:
    if math.isnan(bound):
        text = f"the highest score is {top:.2f}, below {option}: lower the bound or train longer first"
        return Cause("threshold", text)
    return Cause(
        "threshold",
        f"the threshold is too high: the highest score{name} is {top:.2f}, {option} {bound:g}: lower it to "
        f"{math.floor(top * 20) / 20:g}, or train longer before labels teach (unsup_weight.start)",
    )


def _lag(known: Evidence, top: float, student_top: float, bound: float, name: str = "") -> Cause | None:
    """A sentence where the student is sure of what the teacher, its average, is not sure of yet."""
    highest = 0.0 if math.isnan(top) else top
    if not (student_top > bound >= highest):
        return None
    window = round(1 / (1 - known.decay)) if known.decay < 1 else 0
    average = (
        f": decay {known.decay:g} averages {window} iterations, of {known.step}; lower model.teacher.decay "
        "below that"
        if window
        else ""
    )
    return Cause(
        "lag",
        f"the teacher lags behind: its highest score{name} is {highest:.2f}, the student's "
        f"{student_top:.2f}, the bound {bound:g}{average}",
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
