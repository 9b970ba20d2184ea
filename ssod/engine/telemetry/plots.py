"""calibration.png and spread.png: what telemetry.json holds, as plots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ssod.engine.records.curves import COLOURS
from ssod.engine.records.writing import replacing

BINS = 8  # of IoU or spread, whose medians make the line through the points
MOST = 23  # classes that have a panel of their own


def draw_calibration(calibration: dict[str, Any], path: Path) -> None:
    """Writes the reliability diagram: precision against score, with the boxes of each bin below.

    calibration: as in telemetry.json; without truth the counts alone are drawn.
    """
    bins = [each for each in calibration["bins"] if each["count"]]
    known = [each for each in bins if each["precision"] is not None]
    figure = _figure(5.2, 5.2)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot([0, 1], [0, 1], "--", color="#999999", linewidth=1, label="score = precision")
    if known:
        upper.plot([b["score"] for b in known], [b["precision"] for b in known], "o-", color=COLOURS[0])
        error = calibration["expected_error"]
        upper.set_title(f"precision at IoU 0.5 by score; expected error {error:.3f}", loc="left", fontsize=10)
    else:
        upper.set_title("no hidden truth: scores alone", loc="left", fontsize=10)
    upper.set_ylabel("precision")
    upper.set_ylim(0, 1.02)
    upper.legend(fontsize=8, frameon=False, loc="upper left")
    widths = [b["high"] - b["low"] for b in bins]
    bars = lower.bar(
        [b["low"] for b in bins],
        [b["count"] for b in bins],
        widths,
        align="edge",
        color=COLOURS[0],
        alpha=0.6,
    )
    lower.bar_label(bars, fontsize=7)
    lower.margins(y=0.25)
    lower.set_xlim(0, 1)
    lower.set_xlabel("score")
    lower.set_ylabel("boxes")
    _write(figure, [upper, lower], path)


def draw_spread(spread: dict[str, Any], path: Path) -> None:
    """Writes score and jitter spread of the candidates against their IoU with truth (Soft Teacher, Fig. 3).

    spread: as in telemetry.json; without truth, the distribution of the spread.
    """
    points = {
        name: np.array([np.nan if v is None else v for v in each], dtype=np.float64)
        for name, each in spread["points"].items()
    }
    known = np.isfinite(points["iou"])
    figure = _figure(10, 4.2)
    left, right = figure.subplots(1, 2)
    if known.any():
        for axes, name in ((left, "score"), (right, "spread")):
            _scatter(axes, points[name][known], points["iou"][known], spread["correlation"][name], name)
    else:
        left.hist(points["score"], bins=20, color=COLOURS[0])
        left.set_xlabel("score")
        right.hist(points["spread"], bins=20, color=COLOURS[0])
    if not len(known):
        left.set_title("no candidate above the floor", loc="left", fontsize=10)
        for axes in (left, right):
            axes.set_ylim(0, 1)
    right.set_xlabel("jitter spread, relative to the box")
    if spread["bound"] is not None:
        right.axvline(spread["bound"], color=COLOURS[1], linestyle="--", label=f"bound {spread['bound']:g}")
        right.legend(fontsize=8, frameon=False, loc="lower left")
    # A few wild boxes would squeeze all others to the axis.
    finite = points["spread"][np.isfinite(points["spread"])]
    if len(finite):
        limit = max(float(np.quantile(finite, 0.98)) * 1.1, 1.2 * (spread["bound"] or 0.0))
        right.set_xlim(0, limit or None)
    _write(figure, [left, right], path)


def _scatter(axes: Axes, values: Any, iou: Any, correlation: float | None, name: str) -> None:
    """The candidates as points, and the median IoU of equally many at a time."""
    axes.scatter(values, iou, s=9, alpha=0.35, color=COLOURS[0], linewidths=0)
    order = np.argsort(values)
    groups = [each for each in np.array_split(order, min(BINS, max(len(order) // 5, 1))) if len(each)]
    middles = [float(np.median(values[each])) for each in groups]
    medians = [float(np.median(iou[each])) for each in groups]
    label = "median of equally many boxes"
    axes.plot(middles, medians, "o-", color="black", markersize=4, label=label)
    axes.legend(fontsize=8, frameon=False, loc="lower left")
    said = "" if correlation is None else f", rank correlation {correlation:.2f}"
    axes.set_title(f"IoU with truth by {name}{said}", loc="left", fontsize=10)
    axes.set_xlabel(name)
    axes.set_ylabel("IoU with the nearest truth box")
    axes.set_ylim(0, 1.02)


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _write(figure: Figure, panels: list[Axes], path: Path) -> None:
    for axes in panels:
        axes.grid(True, alpha=0.25)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    with replacing(path) as partial:
        figure.savefig(partial, dpi=120, format="png")


def draw_thresholds(advice: dict[str, Any], path: Path) -> None:
    """Writes precision and recall against the score bound: a panel for all, and one for each class.

    advice: as in thresholds.json. Of many classes, the `MOST` with the most boxes.
    """
    classes = sorted(advice["classes"].items(), key=lambda item: -item[1]["truth"])[:MOST]
    panels = [("all classes", advice["all"]), *classes]
    columns = min(4, len(panels))
    rows = -(-len(panels) // columns)
    figure = _figure(3.1 * columns, 2.5 * rows + 0.3)
    grid = list(np.asarray(figure.subplots(rows, columns, squeeze=False, sharey=True)).flat)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    for axes, (name, one) in zip(grid, panels, strict=False):
        points = np.array([[np.nan if v is None else v for v in row] for row in one["curve"]], dtype=float)
        axes.plot(points[:, 0], points[:, 1], color=COLOURS[0], label="precision")
        axes.plot(points[:, 0], points[:, 2], color=COLOURS[1], linestyle="--", label="recall")
        axes.axhline(advice["min_precision"], color="#999999", linewidth=0.8, linestyle=":")
        if one["min_score"] is not None:
            axes.axvline(one["min_score"], color="black", linewidth=1)
        bound = "no bound" if one["min_score"] is None else f"bound {one['min_score']:.2f}"
        title = f"{name} ({one['truth']} boxes): {bound}"
        axes.set_title(title, loc="left", fontsize=9, parse_math=False)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.02)
    lines = grid[0].get_lines()[:2]
    figure.legend(handles=lines, loc="outside upper center", ncols=2, fontsize=9, frameon=False)
    figure.supxlabel("score bound", fontsize=9)
    _write(figure, grid[: len(panels)], path)
