"""Line charts and strips of gains as inline SVG; colours come from the page's style, by class."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 340, 200
LEFT, RIGHT, TOP, BOTTOM = 34, 10, 10, 24  # room for the axes' numbers
STRIP_WIDTH, STRIP_HEIGHT = 150, 40
SMALLEST = 1e-6  # a span that is less, by itself or beside its values, is of rounding alone
Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """A line of a chart. `style`: classes of the page's style · `faint`: one of the runs behind a mean."""

    name: str
    points: tuple[Point, ...]
    style: str
    faint: bool = False


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """At least two round numbers from at or below `low` to at or above `high`, about `most` of them."""
    span, largest = high - low, max(abs(low), abs(high))
    if span <= SMALLEST * max(largest, 1.0):
        span = largest if largest > SMALLEST else 1.0
    rough = span / most
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(place * step, 10) for place in range(first, max(last, first + 1) + 1)]


def short(value: float) -> str:
    """A number for an axis: "1.5k" for 1500."""
    return f"{value / 1000:g}k" if abs(value) >= 1000 else f"{value:g}"


def line_chart(series: Sequence[Series], about: str, y_range: tuple[float, float], digits: int = 1) -> str:
    """A chart of the series against iterations. about: what it shows, in words."""
    across = [x for each in series for x, _ in each.points]
    rows = ticks(*y_range)
    columns = [each for each in ticks(0.0, max(across), 4) if each <= max(across)]
    x_scale = (WIDTH - LEFT - RIGHT) / (max(across) or 1.0)
    y_scale = (HEIGHT - TOP - BOTTOM) / (rows[-1] - rows[0])

    def place(point: Point) -> str:
        return f"{LEFT + point[0] * x_scale:.1f},{HEIGHT - BOTTOM - (point[1] - rows[0]) * y_scale:.1f}"

    parts = [_grid(rows, columns, x_scale, y_scale)]
    for each in sorted(series, key=lambda one: not one.faint):
        kind = f"line {each.style}{' faint' if each.faint else ''}"
        if len(each.points) > 1:
            parts.append(f'<polyline class="{kind}" points="{" ".join(map(place, each.points))}"/>')
        if len(each.points) == 1 or not each.faint:
            x, y = place(each.points[-1]).split(",")
            parts.append(f'<circle class="dot {each.style}" cx="{x}" cy="{y}" r="2.6"/>')
    shown = [each for each in series if not each.faint]
    hover = {
        "left": LEFT,
        "scale": round(x_scale, 8),
        "digits": digits,
        "series": [
            {"name": each.name, "style": each.style, "points": [[x, round(y, 4)] for x, y in each.points]}
            for each in shown
        ],
    }
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(about)}" '
        f'data-hover="{escape(json.dumps(hover))}">{"".join(parts)}'
        f'<line class="cursor" y1="{TOP}" y2="{HEIGHT - BOTTOM}" x1="-9" x2="-9"/></svg>'
    )


def _grid(rows: Sequence[float], columns: Sequence[float], x_scale: float, y_scale: float) -> str:
    """Horizontal lines, and numbers on both axes."""
    parts = []
    for value in rows:
        y = HEIGHT - BOTTOM - (value - rows[0]) * y_scale
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(
            f'<text class="tick" x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{short(value)}</text>'
        )
    for value in columns:
        x = LEFT + value * x_scale
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{HEIGHT - 7}" text-anchor="middle">{short(value)}</text>'
        )
    return "".join(parts)


def gain_strip(
    differences: Sequence[float],
    low: float | None,
    high: float | None,
    mean: float,
    ends: tuple[float, float],
) -> str:
    """A row's gains on the scale `ends`: a dot for each pair, a tick for the mean, a bar for the interval."""
    middle = STRIP_HEIGHT / 2
    parts = [f'<line class="zero" x1="{_along(0, ends)}" x2="{_along(0, ends)}" y1="0" y2="{STRIP_HEIGHT}"/>']
    if low is not None and high is not None:
        clipped = (max(low, ends[0]), min(high, ends[1]))
        parts.append(
            f'<line class="interval" x1="{_along(clipped[0], ends)}" x2="{_along(clipped[1], ends)}" '
            f'y1="{middle}" y2="{middle}"/>'
        )
    parts += [f'<circle class="pair" cx="{_along(each, ends)}" cy="{middle}" r="3"/>' for each in differences]
    at = _along(mean, ends)
    parts.append(f'<line class="mean" x1="{at}" x2="{at}" y1="{middle - 7}" y2="{middle + 7}"/>')
    return _strip(parts, STRIP_HEIGHT)


def gain_axis(ends: tuple[float, float]) -> str:
    """The scale above the strips: its ends and zero."""
    parts = []
    room = 24  # px that the number of an end and a zero beside it need
    for value, anchor in ((ends[0], "start"), (0.0, "middle"), (ends[1], "end")):
        if anchor == "middle" or abs(float(_along(value, ends)) - float(_along(0, ends))) > room:
            sign = "+" if value > 0 else "−" if value < 0 else ""
            parts.append(
                f'<text class="tick" x="{_along(value, ends)}" y="10" text-anchor="{anchor}">'
                f"{sign}{abs(value):g}</text>"
            )
    return _strip(parts, 13)


def _along(value: float, ends: tuple[float, float]) -> str:
    inner = STRIP_WIDTH - 12
    return f"{6 + (value - ends[0]) / (ends[1] - ends[0]) * inner:.1f}"


def _strip(parts: Sequence[str], height: int) -> str:
    return (
        f'<svg class="strip" viewBox="0 0 {STRIP_WIDTH} {height}" width="{STRIP_WIDTH}" height="{height}" '
        f'aria-hidden="true">{"".join(parts)}</svg>'
    )
