"""What figures are drawn from: scores against precision in bins, spread and score against IoU.

NumPy alone: no network, no file.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ssod.engine.telemetry.matching import Floats, Integers, Matches

NUM_BINS = 10


def reliability(matches: Matches, num_bins: int = NUM_BINS) -> list[dict[str, Any]]:
    """Bins of equal width over the scores: low, high, score (mean), precision, count (boxes), known.

    `count` is of all boxes, `known` of those that precision is about, as is `score` where there are any; what
    has no value is None. A score on an edge belongs to the lower bin.
    """
    edges = np.linspace(0, 1, num_bins + 1)
    which = _bin_of(matches.scores, edges)
    bins = []
    for number in range(num_bins):
        inside = which == number
        known = inside & matches.counted
        scored = known if known.any() else inside
        bins.append(
            {
                "low": round(float(edges[number]), 6),
                "high": round(float(edges[number + 1]), 6),
                "score": float(matches.scores[scored].mean()) if scored.any() else None,
                "precision": float(matches.hit[known].mean()) if known.any() else None,
                "count": int(inside.sum()),
                "known": int(known.sum()),
            }
        )
    return bins


def _bin_of(scores: Floats, edges: Any) -> Integers:
    """The number of the bin (N,) that each score lies in."""
    return np.clip(np.digitize(scores, edges, right=True) - 1, 0, len(edges) - 2)


def calibration_error(matches: Matches, num_bins: int = NUM_BINS) -> float | None:
    """The expected calibration error: |mean score - precision| of the bins, weighted by their boxes."""
    mine = matches.counted
    which = _bin_of(matches.scores, np.linspace(0, 1, num_bins + 1))[mine]
    if not len(which):
        return None
    gaps = np.bincount(which, matches.scores[mine] - matches.hit[mine], minlength=num_bins)
    return float(np.abs(gaps).sum() / len(which))


def rank_correlation(first: Floats, second: Floats) -> float | None:
    """Spearman's correlation of two series, ties sharing their mean rank; None where it has no value."""
    if len(first) < 3:
        return None
    one, other = _ranks(first), _ranks(second)
    spread = one.std() * other.std()
    value = ((one - one.mean()) * (other - other.mean())).mean() / spread if spread > 0 else math.nan
    return float(value) if math.isfinite(value) else None


def _ranks(values: Floats) -> Floats:
    """The rank of each value; equal ones share the mean of theirs."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: Floats = (ends - (counts - 1) / 2)[places]
    return ranks
