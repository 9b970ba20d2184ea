"""Growth: powers in closed form, a teacher that finds what it is told to, and a small plot of each kind."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from reference import benchmark as reference
from reference import detectors

from ssod.core.labels import BoxLabels
from ssod.errors import UserError
from ssod.models import frcnn
from ssod.models.jitter import BoxJitter
from ssod.study.benchmark import forcing, growth
from ssod.study.benchmark.settings import Settings

pytestmark = pytest.mark.usefixtures("no_collection")
TOOL = str(Path(__file__).parents[3] / "tools/benchmark.py")
POWERS: list[tuple[list[float], list[float], float | None]] = [
    ([1, 2, 4], [3.0, 6.0, 12.0], 1.0),
    ([1, 2, 4], [3.0, 12.0, 48.0], 2.0),
    ([1, 10], [5.0, 5.0], 0.0),
    ([4, 1, 2], [48.0, 3.0, 6.0], 3.0),  # in any order: from 2 to 4 it grows eightfold
    ([0, 15], [1.0, 2.0], None),  # from nothing there is no power
]


@pytest.mark.parametrize(("amounts", "costs", "expected"), POWERS)
def test_the_largest_power_of_growth(
    amounts: list[float], costs: list[float], expected: float | None
) -> None:
    found = growth.exponent(amounts, costs)
    assert found == (None if expected is None else pytest.approx(expected))


def test_values_as_numbers() -> None:
    assert growth.amounts("boxes", ["0", "15"]) == [0.0, 15.0]
    assert growth.amounts("size", ["640x480"]) == [0.3072]
    assert all(growth.amounts(what, values) for what, values in growth.VALUES.items())


@pytest.mark.parametrize(
    ("what", "value"), [("boxes", "-1"), ("classes", "0"), ("jitters", "1"), ("ratio", "1.5"), ("size", "5")]
)
def test_values_that_can_t_be(what: str, value: str) -> None:
    with pytest.raises(UserError):
        growth.amounts(what, [value])


@pytest.fixture(scope="module")
def model(registered: None) -> Any:
    return detectors.semi_detector(dict(type="SoftTeacher", unsup_weight=4.0), dict(type="EMATeacher"))


@pytest.mark.parametrize("boxes", [0, 7])
def test_every_branch_learns_from_as_many_boxes_as_are_asked_for(model: Any, boxes: int) -> None:
    batch = detectors.semi_batch()
    model.set_step(1)
    with forcing.forced(model, boxes):
        log = model.loss(batch)
    counts = {key: float(value) for key, value in log.items() if key.startswith("num_boxes")}
    assert counts["num_boxes_candidates"] == boxes
    # A box may leave the strong view, which is turned and smaller.
    assert all(0.4 * boxes <= count <= boxes for count in counts.values())
    assert model.method.box_max_spread == 0.02  # as it was


def test_sure_boxes_lie_in_their_views() -> None:
    view = detectors.view()
    found = forcing.sure_boxes(view, 40, 5)
    limit = view.size.flip(-1).repeat(1, 2)[:, None]
    assert found.boxes.shape == (2, 40, 4)
    assert (found.boxes >= 0).all() and (found.boxes <= limit).all()
    assert found.valid.all() and found.classes.unique().tolist() == [0, 1, 2, 3, 4]
    sides = (found.boxes[..., 2:] - found.boxes[..., :2]) / view.size.flip(-1)[:, None]
    assert sides.min() >= 0.099 and sides.max() <= 0.331


def test_jitters_are_those_asked_for(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, batch = [], detectors.semi_batch()
    refine = frcnn.refine_boxes
    monkeypatch.setattr(
        frcnn, "refine_boxes", lambda *given: seen.append(given[2].shape[1]) or refine(*given)
    )
    for jitters in (3, 6):
        with forcing.forced(model, 4, jitters):
            model.loss(batch)
    assert seen == [12, 24]


def test_what_is_found_is_paid_for(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    features = frcnn.features
    monkeypatch.setattr(frcnn, "features", lambda *given: calls.append(given[0]) or features(*given))
    with forcing.forced(model, 2):
        labels, _ = frcnn.detect(model.teacher, detectors.view(), 0.5)
    assert calls == [model.teacher]
    assert isinstance(labels, BoxLabels)


GROWN: list[tuple[str, list[str]]] = [
    ("boxes", ["0", "20"]),
    ("classes", ["2", "9"]),
    ("size", ["64x64", "128x128"]),
    ("ratio", ["1", "3"]),
]


@pytest.mark.parametrize(("what", "values"), GROWN, ids=[row[0] for row in GROWN])
def test_points_differ_in_what_is_varied(
    registered: None, tmp_path: Path, what: str, values: list[str]
) -> None:
    config = reference.write(tmp_path / "tiny.py")
    settings = Settings(config, device="cpu", drawn=True, batch=(1, 1), size=(96, 64), boxes=5)
    seen = []
    with growth.opened(settings, 3) as opened:
        for point in growth.points(opened, settings, what, values):
            point.prepare(0)
            with torch.no_grad(), point.around():
                semi = point.model.data_preprocessor(point.batch, True)["inputs"]
                found, _ = frcnn.detect(point.model.teacher, semi.weak, 0.5)
            head = point.model.student.roi_head.bbox_head
            seen.append(
                {
                    "boxes": int(found.per_image()),
                    "classes": head.num_classes,
                    "size": tuple(semi.strong.images.shape[:1:-1]),
                    "ratio": len(semi.strong.images),
                }
            )
    expected = dict(boxes=5, classes=8, size=(96, 64), ratio=1)
    as_typed = [growth.parse_size(each) if what == "size" else int(each) for each in values]
    assert seen == [expected | {what: value} for value in as_typed]


def test_the_command_writes_numbers_and_a_plot(registered: None, tmp_path: Path) -> None:
    config = reference.write(tmp_path / "tiny.py")
    words = [config, "--device", "cpu", "--drawn", "--batch", "1+1", "--size", "96x64", "--rounds", "1"]
    words += ["--vary", "jitters", "--values", "2", "4", "--out", str(tmp_path / "out")]
    assert runpy.run_path(TOOL)["main"](words) == 0
    report = json.loads((tmp_path / "out/vary_jitters.json").read_text())
    assert (report["vary"], report["values"], report["amounts"]) == ("jitters", ["2", "4"], [2.0, 4.0])
    assert [len(each["rounds"]) for each in report["seconds"]] == [1, 1]
    assert len(report["memory"]["bytes"]) == 2
    assert set(report["exponents"]) == {"seconds", "memory"}
    assert (tmp_path / "out/vary_jitters.png").read_bytes().startswith(b"\x89PNG")


BAD: list[tuple[list[str], str]] = [
    (["--vary", "boxes", "--against", "mmdet"], "leave out --against"),
    (["--values", "1"], "--values is for --vary"),
    (["--vary", "jitters"], "method FixMatch jitters no boxes"),
    (["--vary", "boxes", "--values", "many"], "whole numbers of at least 0"),
]


@pytest.mark.parametrize(("words", "said"), BAD, ids=[row[1] for row in BAD])
def test_what_can_t_be_varied(
    registered: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    config = reference.write(tmp_path / "tiny.py", method=dict(type="FixMatch"))
    assert (
        runpy.run_path(TOOL)["main"]([config, "--device", "cpu", "--drawn", "--size", "96x64", *words]) == 2
    )
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("error: ") and said in lines[-1]


def test_a_config_without_a_method(registered: None, tmp_path: Path) -> None:
    config = reference.write(tmp_path / "tiny.py", supervised=True)
    with pytest.raises(UserError, match=r"has no model\.method"):
        growth.vary(Settings(config, device="cpu", drawn=True, batch=(1, 1)), "boxes")


def test_a_jitter_stays_the_methods_own(model: Any) -> None:
    with forcing.forced(model, 1, 3):
        assert model.method.jitter.num_jitters == 3
    assert isinstance(model.method.jitter, BoxJitter) and model.method.jitter.num_jitters == 10
