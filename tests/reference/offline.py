"""Slow oracle of offline labels: one box at a time, from a file's pixels to the strong view's."""

from __future__ import annotations

from collections.abc import Sequence

from .boxes import area, hull, project

Label = tuple[list[float], int, float]  # box, class, score


def placed(
    labels: Sequence[Label],
    homography: Sequence[Sequence[float]],
    size: tuple[float, float],
    min_visible: float = 0.0,
    min_side: float = 1e-2,
) -> list[Label]:
    """The labels in a view of (height, width): moved, cut, dropped if thin or mostly out of view."""
    kept = []
    for box, kind, score in labels:
        whole, seen = hull(box, homography), project(box, homography, size)
        wide = seen[2] - seen[0] > min_side and seen[3] - seen[1] > min_side
        if wide and area(seen) / max(area(whole), 1e-6) >= min_visible:
            kept.append((seen, kind, score))
    return kept


def above(scores: Sequence[float], valid: Sequence[bool], min_score: float) -> list[bool]:
    """Which labels of an image STAC learns from: the real ones with at least the threshold."""
    chosen = []
    for score, real in zip(scores, valid, strict=True):
        chosen.append(bool(real) and score >= min_score)
    return chosen
