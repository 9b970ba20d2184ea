"""What tools/bench_loader.py compares: mmdet's pipeline and ours make the same pixels of the same draws."""

import runpy
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from ssod.data.draws import seeded

pytestmark = pytest.mark.usefixtures("registered")
tool = runpy.run_path(str(Path(__file__).parents[2] / "tools/bench_loader.py"))


@pytest.fixture
def images(tmp_path: Path) -> list[str]:
    """A photograph-like image of either orientation."""
    paths = []
    for number, (height, width) in enumerate(((90, 120), (110, 80))):
        coarse = np.random.default_rng(number).integers(0, 255, (9, 12, 3), dtype=np.uint8)
        paths.append(str(tmp_path / f"{number}.jpg"))
        cv2.imwrite(paths[-1], cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))
    return paths


def test_views_equal_mmdets_bit_by_bit(images: list[str]) -> None:
    """All that is faster in ours changes no pixel and no homography of the published views."""
    runs = tool["pipelines"]([(150, 60), (150, 130)])
    names = {"weak": "unsup_teacher", "strong": "unsup_student"}
    for seed in range(60):
        record = dict(img_path=images[seed % 2], img_id=1, height=1, width=1, instances=[])
        items: dict[str, Any] = {}
        for name, run in runs.items():
            with seeded((seed,)):
                items[name] = run(dict(record))
        for ours, theirs in names.items():
            view = items["ssod"][ours]
            assert torch.equal(view["inputs"], items["mmdet"]["inputs"][theirs]), f"{ours} view, draw {seed}"
            # mmdet composes in float32.
            np.testing.assert_allclose(
                view["data_samples"].homography_matrix,
                items["mmdet"]["data_samples"][theirs].homography_matrix,
                rtol=1e-4,
                atol=1e-3,
            )


def test_the_tool_prints_rates_and_their_ratio(images: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(Path(images[0]).parent)
    assert tool["main"]([folder, "--rounds", "1", "--scale", "150", "60", "150", "130"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head == "2 images, scale (150, 60) to (150, 130)"
    assert [line.split()[0] for line in lines] == ["processor", "wall"]
    assert all("images/s per worker, ratio" in line for line in lines)


def test_images_that_are_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool["main"]([str(tmp_path / "gone")]) == 2
    assert "do not exist" in capsys.readouterr().err
