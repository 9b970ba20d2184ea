"""What a measurement becomes in files: the line of metrics.jsonl, and telemetry.json."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ssod.engine.telemetry.bins import calibration_error, rank_correlation, reliability
from ssod.engine.telemetry.matching import Quality, quality
from ssod.engine.telemetry.measure import AGNOSTIC, FLOOR, Measurement

POINTS = 1000  # candidates that telemetry.json lists one by one
NOTHING = Quality(float("nan"), float("nan"), float("nan"), float("nan"))


def line(found: Measurement, classes: Sequence[str]) -> dict[str, float | int]:
    """The flat keys of a "pseudo_labels" line: of the head part, of each part, of each part's classes.

    nan, which becomes null, where there is no value: without truth, without a box, in a method that has no
    such part. Parts without classes (the RPN's) have none here either.
    """
    values: dict[str, float | int] = {"images": found.images, "images_with_truth": found.known}
    head = found.head
    values |= _flat("", NOTHING if head is None else quality(found.parts[head]))
    for part, matches in found.parts.items():
        values |= _flat(f"{part}/", quality(matches))
        if part not in (*AGNOSTIC, "projected"):
            for number, name in enumerate(classes):
                values |= _flat(f"{part}/{name}/", quality(matches.of_class(number)))
    return values


def _flat(prefix: str, each: Quality) -> dict[str, float]:
    return {
        f"{prefix}precision_50": each.precision,
        f"{prefix}recall_50": each.recall,
        f"{prefix}mean_iou": each.mean_iou,
        f"{prefix}boxes_per_image": each.boxes,
    }


def scalars_of(values: dict[str, float | int]) -> dict[str, float | int]:
    """Those of a line's values that a visualizer gets: finite, and of parts, not of their classes."""
    return {
        f"pseudo_labels/{key}": value
        for key, value in values.items()
        if key.count("/") <= 1 and "images" not in key.split("_") and np.isfinite(value)
    }


def details(found: Measurement, iteration: int, seconds: float, bound: float | None) -> dict[str, Any]:
    """The content of telemetry.json: boxes an image at each stage, calibration, spread against IoU.

    bound: the method's on the spread, if it has one.
    """
    stages = {"detections": found.detections, **found.parts}
    content: dict[str, Any] = {
        "iteration": iteration,
        "images": found.images,
        "images_with_truth": found.known,
        "seconds": round(seconds, 3),
        "filters": [
            {"stage": name, "boxes_per_image": quality(matches).boxes} for name, matches in stages.items()
        ],
        "calibration": {
            "view": "weak" if "projected" in found.parts or found.head is None else "strong",
            "min_score": FLOOR,
            "expected_error": calibration_error(found.detections),
            "bins": reliability(found.detections),
        },
        "spread": None,
    }
    if found.spread:
        content["spread"] = spread_details(found, bound)
    return content


def spread_details(found: Measurement, bound: float | None) -> dict[str, Any]:
    """Rank correlations of spread and of score with the IoU, and up to `POINTS` candidates."""
    points = {name: np.asarray(each) for name, each in found.spread.items()}
    known = np.isfinite(points["iou"])
    step = max(1, -(-len(known) // POINTS))
    return {
        "bound": bound,
        "candidates": len(known),
        "correlation": {
            name: rank_correlation(points[name][known], points["iou"][known]) for name in ("spread", "score")
        },
        "points": {name: [round(float(v), 5) for v in each[::step]] for name, each in points.items()},
    }
