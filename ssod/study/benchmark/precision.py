"""What a teacher that computes in half precision does to its labels: boxes gained, lost and moved."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ssod.core.geometry import box_sides, pairwise_iou
from ssod.core.labels import BoxLabels
from ssod.errors import UserError
from ssod.models import frcnn
from ssod.models.supported import two_stage_fault
from ssod.study.benchmark.batches import fresh
from ssod.study.benchmark.preparation import prepared
from ssod.study.benchmark.settings import Settings

SAME = 0.5  # IoU from which on two boxes of a class are one


def compare(settings: Settings, dtype: str, say: Callable[[str], object] = lambda _: None) -> dict[str, Any]:
    """How the teacher's labels of the batch's weak views differ where it labels in `dtype` from float32's.

    Of all boxes above the method's floor and of those above the thresholds of its classification: how many
    there are, the share that has no partner, and how far partners lie apart. Raises UserError without a
    two-stage teacher or without weak views.
    """
    say("building the model and a batch")
    with prepared(settings) as made:
        model, semi = made.model, made.batches.semi
        if model.teacher is None or semi is None or "weak" not in semi or two_stage_fault(model.student):
            raise UserError(f"--labels-in: config {settings.config} has no two-stage teacher with weak views")
        batch = model.data_preprocessor(fresh(semi), True)["inputs"]
        floor = float(getattr(model.method, "floor", 0.5))
        selection = getattr(model.method, "for_class", None) or getattr(model.method, "selection", None)
        sure = floor if selection is None else float(selection.floor)
        found = []
        for each in (None, getattr(torch, dtype)):
            say("labels in float32" if each is None else f"labels in {dtype}")
            model.teacher.network_dtype = each
            found.append(frcnn.detect(model.teacher, batch.weak, floor)[0])
        names = {f"score > {floor:g}": floor, f"score > {sure:g}": sure}
        parts = {
            name: apart(*(labels.score_above(bound) for labels in found)) for name, bound in names.items()
        }
    images = len(batch.weak.images)
    return {"config": settings.config, "dtype": dtype, "images": images, "labels": parts, "notes": made.notes}


def apart(first: BoxLabels, second: BoxLabels) -> dict[str, float]:
    """Counts of two sets of labels, shares without a partner in the other, and what lies between partners.

    A partner is the box of the same class that overlaps most, with an IoU of at least SAME. score: the mean
    difference, not signed · side: the mean distance of coordinates in sides of the box · px: the median.
    """
    gains, scores, sides, pixels = [0, 0], [], [], []
    for image in range(len(first.valid)):
        mine, yours = (_rows(labels, image) for labels in (first, second))
        overlap = pairwise_iou(mine[0], yours[0])
        overlap = overlap.masked_fill(mine[1][:, None] != yours[1], 0.0)
        for number, best in enumerate((overlap, overlap.mT)):
            iou = best.amax(dim=1) if best.shape[1] else best.new_zeros(len(best))
            gains[number] += int((iou < SAME).sum())
        if not overlap.numel():
            continue
        iou, partner = overlap.max(dim=1)
        matched = iou >= SAME
        distance = (mine[0] - yours[0][partner])[matched].abs()
        scores.append((mine[2] - yours[2][partner])[matched].abs())
        sides.append((distance / box_sides(mine[0])[matched]).flatten())
        pixels.append(distance.flatten())
    counts = [int(labels.valid.sum()) for labels in (first, second)]
    shares = [gain / max(count, 1) for gain, count in zip(gains, counts, strict=True)]
    return {
        "before": counts[0],
        "after": counts[1],
        "lost": shares[0],
        "new": shares[1],
        "score": _mean(scores),
        "side": _mean(sides),
        "px": float(torch.cat(pixels).median()) if pixels else math.nan,
    }


def _rows(labels: BoxLabels, image: int) -> tuple[Tensor, Tensor, Tensor]:
    valid = labels.valid[image]
    return labels.boxes[image, valid], labels.classes[image, valid], labels.scores[image, valid]


def _mean(parts: Sequence[Tensor]) -> float:
    return float(torch.cat(list(parts)).mean()) if parts else math.nan


def table(report: dict[str, Any]) -> tuple[str, list[str], list[list[str]]]:
    """Title, heads and rows of a report of `compare`."""
    heads = ["labels", "float32", report["dtype"], "lost", "new", "score", "sides", "px"]
    rows = [
        [
            name,
            f"{each['before']}",
            f"{each['after']}",
            f"{100 * each['lost']:.1f} %",
            f"{100 * each['new']:.1f} %",
            *(f"{each[key]:.4f}" for key in ("score", "side")),
            f"{each['px']:.3f}",
        ]
        for name, each in report["labels"].items()
    ]
    return f"labels of {report['images']} images, float32 against {report['dtype']}", heads, rows
