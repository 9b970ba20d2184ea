"""Labels of two precisions: what is counted, in closed form, and the whole command on a tiny detector."""

from __future__ import annotations

import json
import math
import runpy
from pathlib import Path

import pytest
import torch
from reference import benchmark as reference

from ssod.core.labels import BoxLabels
from ssod.study.benchmark.precision import apart

TOOL = str(Path(__file__).parents[3] / "tools/benchmark.py")


def labels(*boxes: list[float], classes: list[int], scores: list[float]) -> BoxLabels:
    made = torch.tensor(boxes).view(-1, 4)
    return BoxLabels.pad(
        [made, made[:0]], [torch.tensor(classes), torch.tensor([])], [torch.tensor(scores), torch.tensor([])]
    )


def test_partners_and_those_without() -> None:
    first = labels(
        [0.0, 0, 10, 20], [30, 30, 50, 50], [60, 60, 70, 70], classes=[0, 1, 1], scores=[0.9, 0.8, 0.7]
    )
    second = labels(
        [1.0, 0, 10, 20], [30, 30, 50, 50], classes=[0, 0], scores=[0.8, 0.8]
    )  # moved by a tenth of its width; of another class
    found = apart(first, second)
    assert (found["before"], found["after"]) == (3, 2)
    assert found["lost"] == pytest.approx(2 / 3) and found["new"] == 0.5
    assert found["score"] == pytest.approx(0.1)
    assert found["side"] == pytest.approx(0.1 / 4) and found["px"] == 0.0
    same = apart(first, first)
    assert same == dict(before=3, after=3, lost=0.0, new=0.0, score=0.0, side=0.0, px=0.0)
    nothing = labels(classes=[], scores=[])
    assert apart(first, nothing)["lost"] == 1.0 and apart(nothing, first)["new"] == 1.0
    assert all(math.isnan(apart(first, nothing)[name]) for name in ("score", "side", "px"))


@pytest.mark.usefixtures("registered", "no_collection")
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = reference.write(tmp_path / "tiny.py")
    words = [config, "--device", "cpu", "--drawn", "--size", "128x96", "--warm-steps", "1"]
    main = runpy.run_path(TOOL)["main"]
    assert main([*words, "--labels-in", "bfloat16", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "labels.json").read_text())["labels"]
    all_boxes, sure = found["score > 0.5"], found["score > 0.9"]
    assert 48 <= all_boxes["before"] <= 72 and sure["before"] < all_boxes["before"]
    assert 0 < all_boxes["score"] < 0.1 and 0 < all_boxes["side"] < 0.1  # rounded, and not far
    assert "bfloat16" in capsys.readouterr().out
    assert main([*words, "--labels-in", "bfloat16", "--against", "mmdet"]) == 2
