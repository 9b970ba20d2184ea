"""curves.png: a third panel where pseudo labels were measured, drawn from the figures of the lines."""

from pathlib import Path
from typing import Any

import cv2
import pytest
from matplotlib.figure import Figure

from ssod.engine.records import curves

TRAIN = [dict(kind="train", iteration=step, loss=1.0 / step, sup_loss_cls=0.5) for step in (2, 4)]
VAL = [dict(kind="val", iteration=4, **{"teacher/bbox_mAP": 0.25, "teacher/bbox_mAP_50": 0.5})]


def telemetry(**parts: tuple[float | None, float | None]) -> list[dict[str, Any]]:
    """Two lines whose second is half as good."""
    lines = []
    for step, share in ((2, 1.0), (4, 0.5)):
        values: dict[str, Any] = {"kind": "pseudo_labels", "iteration": step}
        for part, pair in parts.items():
            for name, value in zip(("precision_50", "recall_50"), pair, strict=True):
                values[f"{part}/{name}"] = None if value is None else share * value
        lines.append(values)
    return lines


def width(records: list[dict[str, Any]], path: Path) -> int:
    curves.draw_curves(records, path)
    return int(cv2.imread(str(path)).shape[1])


def test_there_is_a_third_panel_only_where_something_is_known(tmp_path: Path) -> None:
    two = width(TRAIN + VAL, tmp_path / "a.png")
    assert width(TRAIN + VAL + telemetry(cls=(None, None)), tmp_path / "b.png") == two
    assert width(TRAIN + VAL + telemetry(cls=(0.8, None)), tmp_path / "c.png") == pytest.approx(
        1.5 * two, abs=2
    )


@pytest.mark.parametrize(
    ("parts", "drawn"),
    [
        (dict(cls=(0.8, 0.4), box=(0.6, 0.2), candidates=(0.3, 0.9)), ["cls", "box"]),
        (dict(candidates=(0.3, 0.9)), ["candidates"]),
        (dict(labels=(0.8, 0.4)), ["labels"]),
    ],
)
def test_the_panel_shows_precision_and_recall_of_the_parts(parts: dict[str, Any], drawn: list[str]) -> None:
    records = telemetry(**parts)
    colours = curves._measured_parts(records)
    assert list(colours) == drawn
    axes = Figure().subplots()
    curves._draw_quality(axes, records, colours)
    lines = {line.get_label(): list(map(float, line.get_ydata())) for line in axes.get_lines()}
    assert lines == {
        f"{part} {name}": pytest.approx([100 * value, 50 * value])
        for part in drawn
        for name, value in zip(("precision", "recall"), parts[part], strict=True)
    }
