"""tools/bench_loader.py: mmdet's pipeline and ours make the same pixels of the same draws; what it prints."""

import runpy
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from ssod.data.decode import read_image
from ssod.data.draws import seeded
from ssod.engine.commands import loader_bench

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
    runs = loader_bench.pipelines([(150, 60), (150, 130)])
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


def printed(images: list[str], capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    """The lines of a run over the folder of the images."""
    given = [str(Path(images[0]).parent), "--rounds", "1", "--scale", "150", "60", "150", "130", *words]
    assert tool["main"](given) == 0
    return capsys.readouterr().out.splitlines()


def test_the_tool_prints_rates_and_their_ratio(images: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    head, *lines = printed(images, capsys)
    kilobytes = sum(Path(image).stat().st_size for image in images) / 2000
    assert head == f"2 images of {kilobytes:.0f} kB on average, scale (150, 60) to (150, 130)"
    assert [line.split()[0] for line in lines] == ["processor", "wall"]
    assert all("images/s per worker, ratio" in line for line in lines)


def test_every_option_adds_its_lines(images: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    words = (
        "--reduced-decoding",
        "--images-per-second",
        "1e9",
        "--padding",
        "1",
        "2",
        "--jpeg-size",
        "300x200",
    )
    lines = printed(images, capsys, *words)
    assert [line.split(" time: ")[-1].split(" images/s")[0].rsplit(" ", 3)[0] for line in lines[1:5]] == [
        "ssod", "ssod, reduced decoding", "ssod", "ssod, reduced decoding"
    ]  # fmt: skip
    needs = [line.split(": ") for line in lines[5:8]]
    assert [name for name, _ in needs] == ["ssod", "ssod, reduced decoding", "mmdet"]
    assert all(text.startswith("1e+09 images/s need ") for _, text in needs)
    # All of one size after --jpeg-size: nothing to group.
    plain, grouped, same = (line.split(": ")[1] for line in lines[8:])
    assert plain == grouped != same and grouped.startswith("student ")


def test_workers_are_rounded_up(capsys: pytest.CaptureFixture[str]) -> None:
    seconds = {(run, clock): [2.0] for run in ("ssod", "mmdet") for clock in loader_bench.CLOCKS}
    loader_bench._report(seconds, 100, 1, 101.0)  # 50 images/s of one worker
    assert "ssod: 101 images/s need 3 workers with a core each" in capsys.readouterr().out


@pytest.mark.parametrize("size", [(70, 50), (300, 200)], ids=str)
def test_jpegs_are_full_of_pixels_of_their_own(images: list[str], tmp_path: Path, size: Any) -> None:
    made = loader_bench.make_jpegs(images, size, tmp_path)
    assert len(made) == 2
    for path in made:
        page = read_image(path)
        assert page.shape == (size[1], size[0], 3)
        assert (page.reshape(-1, 3).max(axis=1) > 0).mean() > 0.97  # no black left
    if size == (300, 200):  # the first photograph lies in the corner as it is
        corner = read_image(made[0])[:90, :120].astype(float)
        assert np.abs(corner - read_image(images[0])).mean() < 4


@pytest.mark.parametrize("text", ["640", "x480", "640x", "0x3", "-1x3", "axb"])
def test_a_size_that_is_none(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        tool["main"](["images", f"--jpeg-size={text}"])
    assert "is no size such as 640x480" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    ["--number=-3", "--rounds=0", "--scale 0 0 0 0", "--images-per-second=0", "--images-per-second=-5"],
)
def test_numbers_that_measure_nothing(
    images: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tool["main"]([str(Path(images[0]).parent), *words.split()]) == 2
    assert "are at least 1" in capsys.readouterr().err


def test_images_that_are_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool["main"]([str(tmp_path / "gone")]) == 2
    assert "do not exist" in capsys.readouterr().err
