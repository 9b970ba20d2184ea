"""Mean and spread of a row, and its gain over the supervised twins with a paired t interval."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

LEVEL = 0.95


@dataclass(frozen=True)
class Summary:
    """Mean and sample standard deviation (n - 1 in its divisor); None for a single value."""

    n: int
    mean: float
    deviation: float | None


@dataclass(frozen=True)
class Gain:
    """Mean of paired differences, and the ends of its t interval; None for a single pair."""

    differences: tuple[float, ...]
    mean: float
    low: float | None
    high: float | None

    @property
    def n(self) -> int:
        """The number of pairs."""
        return len(self.differences)


def summarize(values: Sequence[float]) -> Summary | None:
    """The summary; None of no values."""
    if not values:
        return None
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return Summary(len(values), statistics.fmean(values), deviation)


def paired_gain(differences: Sequence[float]) -> Gain | None:
    """The gain; None of no differences.

    The interval is mean ± t(97.5 %, n - 1) · s / √n, with s the sample standard deviation of the differences.
    """
    from scipy import stats

    summary = summarize(differences)
    if summary is None:
        return None
    if summary.deviation is None:
        return Gain(tuple(differences), summary.mean, None, None)
    reach = float(stats.t.ppf((1 + LEVEL) / 2, summary.n - 1)) * summary.deviation / summary.n**0.5
    return Gain(tuple(differences), summary.mean, summary.mean - reach, summary.mean + reach)
