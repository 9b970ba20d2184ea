"""What the page's charts show: learning curves of each row, and how good its pseudo labels were over time."""

from collections.abc import Sequence
from html import escape

from ssod.study.report.charts import Point, Series, line_chart
from ssod.study.report.reading import is_number
from ssod.study.report.tables import Line, Table
from ssod.study.results import METRIC_KEYS, Run

LINES = (("teacher", "teacher"), ("student", "student"), ("supervised twin", "twin"))  # name and style
COLOURS = 8  # of the page's style, as in ssod/engine/records/curves.py; then dashes tell rows apart
# Of a `pseudo_labels` line in metrics.jsonl: {key: (what it is called, its factor, digits)}.
QUALITY = {
    "precision_50": ("precision at IoU 0.5, %", 100.0, 1),
    "recall_50": ("recall at IoU 0.5, %", 100.0, 1),
    "mean_iou": ("mean IoU of those that are right", 1.0, 3),
    "boxes_per_image": ("pseudo boxes an image", 1.0, 2),
}


def points(run: Run, kind: str, key: str, factor: float) -> list[Point]:
    """A value of metrics.jsonl against iterations; what is null is left out."""
    return [
        (each["iteration"], factor * each[key])
        for each in run.records
        if each.get("kind") == kind and is_number(each.get(key)) and each[key] >= 0
    ]


def average(curves: Sequence[Sequence[Point]]) -> list[Point]:
    """The mean at the iterations that all curves have."""
    values = [dict(curve) for curve in curves if curve]
    shared = set.intersection(*map(set, values)) if values else set()
    return [(x, sum(each[x] for each in values) / len(values)) for x in sorted(shared)]


def _with_runs(name: str, curves: Sequence[Sequence[Point]], style: str) -> list[Series]:
    """The mean, and each run faintly behind it where there are several."""
    mean = average(curves)
    found = [Series(name, tuple(mean), style)] if mean else []
    if len(curves) > 1 or not mean:
        found += [Series(name, tuple(curve), style, faint=True) for curve in curves if curve]
    return found


def _ap(run: Run, network: str) -> list[Point]:
    return points(run, "val", f"{network}/{METRIC_KEYS['AP']}", 100.0)


def learning_curves(table: Table) -> tuple[list[str], list[tuple[str, str]]]:
    """A figure for each row: AP of teacher, student and twins; and name and style of the lines in them."""
    panels: list[tuple[Line, list[Series]]] = []
    for line in table.lines:
        series = []
        twins = list({pair.twin.name: pair.twin for pair in line.pairs}.values())
        if twins:
            curves = [_ap(twin, twin.networks[0]) for twin in twins if twin.networks]
            mean = average(curves)
            series += [Series("supervised twin", tuple(mean), "twin")] if mean else []
        for network in ("teacher", "student"):
            series += _with_runs(network, [_ap(run, network) for run in line.row.runs], network)
        if any(each.style != "twin" for each in series):
            panels.append((line, series))
    every = [y for _, series in panels for each in series for _, y in each.points]
    figures = [_figure(line, series, (min(0.0, *every), max(every))) for line, series in panels]
    used = {each.style for _, series in panels for each in series}
    return figures, [(name, style) for name, style in LINES if style in used]


def _figure(line: Line, series: Sequence[Series], y_range: tuple[float, float]) -> str:
    last = "; ".join(
        f"{each.name} ends at {each.points[-1][1]:.1f}" for each in series if not each.faint and each.points
    )
    about = f"AP against iterations, {line.row.label}: {last}"
    runs = f"n = {len(line.row.runs)}"
    return (
        f"<figure><figcaption><b>{escape(line.row.label)}</b> <span>{runs}</span></figcaption>"
        f"{line_chart(series, about, y_range)}</figure>"
    )


def style_of(place: int) -> str:
    """The classes of the row in that place of its table."""
    dashes = place // COLOURS % 3
    return f"c{place % COLOURS}" + (f" dash{dashes}" if dashes else "")


def quality_curves(table: Table) -> tuple[list[str], list[tuple[str, str]]]:
    """A figure for each measure of pseudo labels; and label and style of the rows in them."""
    shown = [line for line in table.lines if any(_has_quality(run) for run in line.row.runs)]
    figures = []
    for key, (name, factor, digits) in QUALITY.items():
        series = []
        for place, line in enumerate(shown):
            mean = average([points(run, "pseudo_labels", key, factor) for run in line.row.runs])
            if mean:
                series.append(Series(line.row.label, tuple(mean), style_of(place)))
        if series:
            values = [y for each in series for _, y in each.points]
            last = "; ".join(f"{each.name} ends at {each.points[-1][1]:.{digits}f}" for each in series)
            about = f"{name} against iterations: {last}"
            chart = line_chart(series, about, (min(values), max(values)), digits)
            figures.append(f"<figure><figcaption><b>{name}</b></figcaption>{chart}</figure>")
    return figures, [(line.row.label, style_of(place)) for place, line in enumerate(shown)]


def _has_quality(run: Run) -> bool:
    return any(points(run, "pseudo_labels", key, 1.0) for key in QUALITY)
