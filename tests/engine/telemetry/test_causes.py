"""Why no pseudo label is left: each of the known causes, as sentences and in networks."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from reference import detectors

from ssod.core.schedules import Ramp
from ssod.engine.telemetry import causes, evidence
from ssod.engine.telemetry.causes import burn_in, explain
from ssod.engine.telemetry.evidence import Evidence, Nearest
from ssod.engine.telemetry.matching import Matches
from ssod.engine.telemetry.measure import Measurement, measure, next_teacher

SOFT = Evidence(
    boxes=dict(candidates=40, projected=38, rpn=0, cls=0, box=0),
    images=16,
    top=0.62,
    top_projected=0.61,
    student_top=0.55,
    bounds=dict(candidates=("floor", 0.5), rpn=("rpn_min_score", 0.9), cls=("cls_min_score", 0.9)),
    decay=0.999,
    step=300,
    least_spread=0.031,
    spread_bound=0.02,
)


NO_STUDENT = np.full(8, np.nan)


@pytest.mark.parametrize(
    ("changes", "kind", "said"),
    [
        ({}, "threshold RPN", "highest score is 0.61, rpn_min_score 0.9: lower it to 0.6"),
        ({}, "threshold classification", "highest score is 0.61, cls_min_score 0.9"),
        ({}, "spread box regression", "least spread is 0.031, box_max_spread 0.02: raise it to 0.04"),
        (dict(least_spread=float("nan")), "spread box regression",
         "the least spread is nan, box_max_spread 0.02: train longer"),
        (dict(least_spread=float("inf")), "spread box regression",
         "the least spread is inf, box_max_spread 0.02: train longer"),
        (dict(nearest=dict(cls=Nearest("cat", 0.52, 0.6))), "threshold classification",
         "the highest score of class cat is 0.52, cls_min_score 0.6: lower it to 0.5"),
        (dict(nearest=dict(cls=Nearest("cat", 0.52, 0.6, 0.7))), "lag classification",
         "its highest score of class cat is 0.52, the student's 0.70, the bound 0.6"),
        (dict(boxes=dict(candidates=0, projected=0, rpn=1, cls=0, box=1),
              nearest=dict(candidates=Nearest("cat", 0.52, 0.6))), "threshold classification",
         "the highest score of class cat is 0.52, floor 0.6: lower it to 0.5"),
        (dict(student_top=0.97), "lag RPN and classification",
         "highest score is 0.62, the student's 0.97, the bound 0.9: decay 0.999 averages 1000"),
        (dict(boxes=dict(candidates=40, projected=0, rpn=0, cls=0, box=0)),
         "projection RPN and classification and box regression", "of 40 boxes on 16 images the projection"),
        (dict(boxes=dict(candidates=40, projected=0, rpn=0, cls=0, box=0), min_visible=0.5),
         "projection RPN and classification and box regression", "lower min_visible=0.5"),
        (dict(boxes=dict(candidates=0, projected=0, rpn=0, cls=0, box=0), top=0.31, student_top=0.3),
         "threshold RPN and classification and box regression", "highest score is 0.31, floor 0.5"),
        (dict(boxes=dict(candidates=0, projected=0, rpn=0, cls=0, box=0), top=float("nan"), student_top=0.02),
         "nothing RPN and classification and box regression", "finds nothing with a score above 0.05 on 16"),
        (dict(boxes=dict(candidates=0, projected=0, rpn=0, cls=0, box=0), top=float("nan"), student_top=0.8),
         "lag RPN and classification and box regression", "highest score is 0.00, the student's 0.80"),
    ],
)  # fmt: skip
def test_each_cause_is_named_with_its_numbers(changes: dict[str, Any], kind: str, said: str) -> None:
    sentences = explain(replace(SOFT, **changes))
    assert said in sentences[kind], sentences
    assert all(
        text.startswith("no pseudo label is left for ") and "\n" not in text for text in sentences.values()
    )


def test_parts_that_have_boxes_are_not_spoken_of() -> None:
    assert explain(replace(SOFT, boxes=dict(candidates=40, projected=38, rpn=3, cls=3, box=1))) == {}
    one = explain(replace(SOFT, boxes=dict(candidates=40, projected=38, rpn=3, cls=3, box=0)))
    assert list(one) == ["spread box regression"]


def test_burn_in_says_until_when() -> None:
    assert "until iteration 500" in str(burn_in(Ramp(1.0, start=500), 3, 1000))
    assert "the run ends at 400 before that" in str(burn_in(Ramp(1.0, start=500), 3, 400))
    assert burn_in(Ramp(1.0, start=500), 500, 1000) is None
    assert burn_in(Ramp(1.0, length=10), 0, 1000) is None, "the first step of a ramp is no burn-in"
    assert "unsup_weight is 0" in str(burn_in(Ramp(0.0), 3, 1000))


def matches(number: int, hits: int) -> Matches:
    zeros = np.zeros(number)
    return Matches(
        zeros, zeros.astype(np.int64), np.arange(number) < hits, zeros == 0, zeros, np.array([number]), 4
    )


@pytest.mark.parametrize(
    ("number", "named", "places", "wrong"),
    [(40, 1, 30, True), (40, 20, 30, False), (40, 1, 4, False), (4, 0, 4, False)],
)
def test_wrong_classes_are_boxes_at_the_right_places(
    number: int, named: int, places: int, wrong: bool
) -> None:
    found = Measurement({"cls": matches(number, named)}, matches(0, 0), matches(number, places))
    text = causes.wrong_classes(found)
    assert (text is not None) == wrong
    if text is not None:
        assert "75% of the boxes lie on an object, 2% have its class" in text


METHODS: dict[str, tuple[dict[str, Any], dict[str, tuple[str, float]]]] = {
    "SoftTeacher": (
        dict(floor=0.3, rpn_min_score=0.8, cls_min_score=dict(type="IgnoreBand", low=0.4, high=0.7)),
        dict(candidates=("floor", 0.3), rpn=("rpn_min_score", 0.8), cls=("cls_min_score", 0.7),
             box=("cls_min_score", 0.7)),
    ),
    "FixMatch": (dict(min_score=0.6), dict(candidates=("min_score", 0.6), labels=("min_score", 0.6))),
    "UnbiasedTeacher": (
        dict(min_score=dict(type="ClassAdaptive", num_classes=8, min_score=0.6, lowest=0.2)),
        dict(candidates=("min_score", 0.2), labels=("min_score", 0.2)),
    ),
    "STAC": (dict(min_score=0.9), dict(labels=("min_score", 0.9))),
    "MeanTeacher": (dict(floor=0.4), dict(candidates=("floor", 0.4))),
}  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_bounds_are_those_of_the_method(registered: None, name: str) -> None:
    options, expected = METHODS[name]
    assert dict(evidence.bounds_of(detectors.method(name, options))) == expected


class Sample:
    """One batch that the preprocessor need not see."""

    def batches(self, num_images: int | None = None) -> list[dict[str, Any]]:
        batch = detectors.semi_batch()
        views = {
            name: {"data_samples": detectors.samples(getattr(batch, name))} for name in ("weak", "strong")
        }
        return [dict(views, batch=batch)]


def measured(model: Any, step: int = 0) -> Measurement:
    model.data_preprocessor.forward = lambda batch, training: {"inputs": batch["batch"]}
    found = measure(model, Sample().batches(), None, 8, step)
    assert found is not None
    return found


def test_a_network_whose_bounds_are_too_high_says_which(registered: None) -> None:
    """SoftTeacher on lively networks: floors and bounds at which some stage removes all that there is."""
    torch.manual_seed(0)
    options = dict(floor=0.2, rpn_min_score=0.999, cls_min_score=0.2, box_max_spread=1e-6)
    model = detectors.semi_detector(dict(type="SoftTeacher", **options), dict(type="EMATeacher"))
    found = measured(model)
    assert causes.empty_parts(found) == ["rpn", "box"]
    sentences = explain(evidence.gather(model, found, NO_STUDENT, step=10))
    assert set(sentences) == {"threshold RPN", "spread box regression"}
    top = float(found.parts["projected"].scores.max())
    assert f"the highest score is {top:.2f}, rpn_min_score 0.999" in sentences["threshold RPN"]
    assert 0 < len(found.left) <= len(found.spread["spread"]) and min(found.left) in found.spread["spread"]
    assert f"the least spread is {min(found.left):.3f}" in sentences["spread box regression"]


def test_projection_that_loses_all_is_named(registered: None, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    options = dict(floor=0.2, rpn_min_score=0.2, cls_min_score=0.2, box_selection="score")
    model = detectors.semi_detector(dict(type="SoftTeacher", **options), dict(type="EMATeacher"))
    kept = detectors.semi_batch()
    away = kept.weak_to_strong.clone()  # type: ignore[union-attr]
    away[:, :2, 2] += 1e4
    monkeypatch.setattr(detectors, "semi_batch", lambda: replace(kept, weak_to_strong=away))
    found = measured(model)
    assert len(found.parts["candidates"].scores) > 0 == len(found.parts["projected"].scores)
    [(kind, text)] = explain(evidence.gather(model, found, NO_STUDENT, step=10)).items()
    assert kind.startswith("projection") and "loses all" in text


def test_each_class_is_held_against_its_own_threshold(registered: None) -> None:
    """The highest score of any class may lie above the lowest threshold of any, and still nothing teaches."""
    policy = dict(type="ClassAdaptive", num_classes=3, min_score=0.9, lowest=0.5)
    method = detectors.method("FixMatch", dict(min_score=policy))
    method.selection.counts.copy_(torch.tensor([[100.0, 100.0, 100.0], [90.0, 1.0, 1.0]]))
    high, low, _ = method.selection.thresholds().tolist()
    assert high == pytest.approx(0.9) and low == 0.5
    scores, classes = np.array([0.8, 0.7, 0.45, 0.3]), np.array([0, 0, 1, 1])
    found = np.ones(4, bool)
    boxes = Matches(scores, classes, found, found, scores, np.ones(3, np.int64), 4)
    measurement = Measurement({"candidates": matches(0, 0), "labels": matches(0, 0)}, boxes, matches(0, 0))
    model = SimpleNamespace(method=method, teacher=None, policy=None)
    known = evidence.gather(model, measurement, np.array([0.1, 0.2, 0.3]), 9, ("a", "b", "c"))
    assert known.nearest == {"candidates": Nearest("b", 0.45, 0.5, 0.2)} and known.student_top == 0.3
    [text] = explain(known).values()
    assert "the highest score of class b is 0.45, min_score 0.5: lower it to 0.45" in text


@pytest.mark.parametrize(
    ("policy", "step", "expected"),
    [
        (dict(), 300, 1 - 1 / 300),
        (dict(), 5000, 0.999),
        (dict(ramp=False), 300, 0.999),
        (dict(decay=0.9), 300, 0.9),
        (dict(), 0, 0.0),
    ],
    ids=str,
)
def test_the_decay_is_the_one_in_force(
    registered: None, policy: dict[str, Any], step: int, expected: float
) -> None:
    """A ramp averages all there was, until the option's decay is less."""
    method = dict(type="FixMatch", labeler="teacher")
    model = detectors.semi_detector(method, dict(type="EMATeacher", **policy))
    found = Measurement({"candidates": matches(0, 0)}, matches(0, 0), matches(0, 0))
    known = evidence.gather(model, found, NO_STUDENT, step)
    assert known.decay == pytest.approx(expected)


def test_a_method_of_ones_own_may_have_a_spread_and_no_bound(registered: None) -> None:
    one = replace(matches(1, 1), truth=np.array([1]))
    parts = {"candidates": one, "projected": one, "box": matches(0, 0)}
    found = Measurement(parts, one, matches(0, 0), {"spread": np.array([0.1])}, left=[0.1])
    model = SimpleNamespace(method=SimpleNamespace(), teacher=1, policy=SimpleNamespace())
    [text] = explain(evidence.gather(model, found, NO_STUDENT, step=5)).values()
    assert "the method's bound" in text


@pytest.mark.parametrize(
    ("left", "least"),
    [([0.3, float("nan"), 0.1], "0.100"), ([float("nan")], "nan"), ([float("inf"), float("nan")], "inf")],
    ids=str,
)
def test_the_least_spread_is_of_what_the_strong_view_still_shows(left: list[float], least: str) -> None:
    """Of the weak view's candidates, 0.01 is not among what is chosen from; no number is no spread."""
    one = replace(matches(1, 1), truth=np.array([1]))
    parts = {"candidates": one, "projected": one, "box": matches(0, 0)}
    found = Measurement(parts, one, matches(0, 0), {"spread": np.array([0.01, *left])}, left=left)
    model = SimpleNamespace(method=SimpleNamespace(box_max_spread=0.02), teacher=None, policy=None)
    [text] = explain(evidence.gather(model, found, NO_STUDENT, step=5)).values()
    assert f"the least spread is {least}, box_max_spread 0.02" in text


def test_where_burn_in_ends_the_students_labels_are_measured(registered: None) -> None:
    """The next step copies it to the teacher first; what was averaged until then never labels."""
    method = dict(type="FixMatch", min_score=0.2, unsup_weight=dict(value=1.0, start=300), labeler="teacher")
    model = detectors.semi_detector(method, dict(type="EMATeacher"))

    def scores(step: int) -> Any:
        return measured(model, step).detections.scores

    before, at_end, after = scores(299), scores(300), scores(301)
    assert np.array_equal(before, after) and not np.array_equal(before, at_end)
    frozen = detectors.semi_detector(method, dict(type="FrozenTeacher"))
    assert next_teacher(frozen, 300) is frozen.teacher, "it keeps its weights"
    model.set_step(300)
    assert np.array_equal(scores(301), at_end), "as the step itself has it"
