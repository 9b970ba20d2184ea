"""How numbers are written, the same in every format: per cent, one decimal; gains with sign and interval."""

from ssod.study.report.statistics import Gain, Summary
from ssod.study.report.tables import Line

NONE = "–"
MINUS = "−"
NO_INTERVAL = "one pair, no interval"
BETWEEN = (
    "AP of a row less that of a column, over runs with the same labeled images, seed and number of "
    "iterations: the teachers', or the students' where one of the two rows has no teacher. With the 95 % "
    "interval of a paired t test; bold where that does not hold zero, as one in twenty does not by chance"
)
PUBLISHED = "Published, on the same data, split protocol and share; schedule and detector may differ"


def number(value: float | None, digits: int = 1) -> str:
    """Such as "43.1"; a dash for None."""
    return NONE if value is None else f"{value:.{digits}f}"


def spread(summary: Summary | None) -> str:
    """Such as "43.1 ± 1.5"; the mean alone of a single run."""
    if summary is None:
        return NONE
    return number(summary.mean) + ("" if summary.deviation is None else f" ± {summary.deviation:.1f}")


def signed(value: float) -> str:
    """Such as "+4.8" or "−0.1"; no sign before what is rounded to 0.0."""
    text = f"{abs(value):.1f}"
    return text if text == "0.0" else f"{'+' if value > 0 else MINUS}{text}"


def interval(gain: Gain) -> str:
    """Such as "[+1.8, +7.8]", or in words that there is none."""
    if gain.low is None or gain.high is None:
        return NO_INTERVAL
    return f"[{_end(gain.low)}, {_end(gain.high)}]"


def _end(value: float) -> str:
    """An interval's end; with two decimals next to zero, on one side of which it is."""
    text = signed(value)
    return text if text != "0.0" or not value else f"{'+' if value > 0 else MINUS}{abs(value):.2f}"


def gain_text(gain: Gain | None, line: Line) -> str:
    """Such as "+4.8 [+1.8, +7.8]", with the number of pairs where that is not the number of runs."""
    if gain is None:
        return "twin" if line.row.first.is_supervised else NONE
    if gain.low is None:
        return f"{signed(gain.mean)} ({NO_INTERVAL})"
    return f"{signed(gain.mean)} {interval(gain)}{few_pairs(gain, line)}"


def few_pairs(gain: Gain, line: Line) -> str:
    """The number of pairs, where that is not the number of runs and not said already."""
    return "" if gain.n in (1, len(line.row.runs)) else f", {gain.n} pairs"


def is_told_from_zero(gain: Gain) -> bool:
    """Whether the interval does not hold zero."""
    return gain.low is not None and gain.high is not None and not gain.low <= 0 <= gain.high


def batch(line: Line) -> str:
    """Such as "8 + 8": labeled and unlabeled images of an iteration."""
    return " + ".join(map(str, line.row.first.batch))


def iterations(line: Line) -> str:
    """Such as "180,000"; of a training in stages also how many these were in all."""
    own = int(line.row.first.result["iterations"])
    total = line.row.first.total_iterations
    return f"{own:,}" if total == own else f"{own:,} ({total:,} in all stages)"


def explanation(report_metrics: tuple[str, ...]) -> str:
    """The sentence below each table."""
    named = ", ".join(report_metrics)
    return (
        f"{named} in per cent: mean ± sample standard deviation over the n runs of a row, which differ in "
        "seed and fold alone. Δ: mean difference in AP to the supervised twin, the run with the same labeled "
        "images, seed and number of iterations, with the 95 % interval of a paired t test."
    )
