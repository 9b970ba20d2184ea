"""Which pictures a page shows, and that they stay small."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from reference.report_runs import picture, result, write_run

from ssod.study.report import pictures as module
from ssod.study.report.pictures import last_picture, pictures
from ssod.study.report.tables import make_report
from ssod.study.results import find_runs


def run_in(folder: Path, method: str = "FixMatch", seed: int = 0, **more: Any) -> Path:
    return write_run(folder, result(method, seed, {"teacher": [40, 60, 40]}, **more))


def decoded(uri: str) -> Image.Image:
    kind, _, content = uri.partition(";base64,")
    image = Image.open(io.BytesIO(base64.b64decode(content)))
    assert kind == f"data:image/{str(image.format).lower()}"
    return image


def test_the_last_validation_is_the_one_with_the_highest_number(tmp_path: Path) -> None:
    folder = run_in(tmp_path / "a")
    for number in (900, 10000, 1800):
        picture(folder / "pseudo_labels" / f"iter_{number:04}.jpg", 0, (100, 100))
    (run,) = find_runs([tmp_path])
    last = last_picture(run)
    assert last is not None and last.name == "iter_10000.jpg"


def test_one_run_of_each_row_is_shown_with_what_telemetry_drew(tmp_path: Path) -> None:
    for seed in (0, 1):
        picture(run_in(tmp_path / f"a{seed}", seed=seed) / "pseudo_labels/iter_3.jpg", seed, (100, 80))
    folder = run_in(tmp_path / "b", "SoftTeacher")
    picture(folder / "pseudo_labels/iter_3.jpg", 5, (100, 100))
    Image.new("RGB", (40, 30)).save(folder / "pseudo_labels/calibration.png")
    found, unshown = pictures(make_report([tmp_path]))
    assert [(each.label, each.detail) for each in found[0]] == [
        ("FixMatch", "a0, iteration 3"),
        ("Soft Teacher", "b, iteration 3"),
        ("Soft Teacher", "calibration of scores, b"),
    ]
    assert unshown == 0
    assert [decoded(each.uri).size for each in found[0]] == [(100, 80), (100, 100), (40, 30)]
    assert [(each.width, each.height) for each in found[0]] == [(100, 80), (100, 100), (40, 30)]


def test_large_pictures_are_made_smaller(tmp_path: Path) -> None:
    """Noise is what JPEG compresses worst: 1,600 px of it are over a megabyte."""
    folder = run_in(tmp_path / "a") / "pseudo_labels"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (1200, 1600, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "iter_1.jpg", quality=95)
    assert (folder / "iter_1.jpg").stat().st_size > 1_000_000
    found, _ = pictures(make_report([tmp_path]))
    (shown,) = found[0]
    assert len(base64.b64decode(shown.uri.partition(",")[2])) <= module.MOST_BYTES
    assert decoded(shown.uri).width < 900 and shown.width / shown.height == pytest.approx(4 / 3, rel=0.02)


def test_a_page_has_so_many_pictures_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_PICTURES", 2)
    for method in ("A", "B", "C"):
        picture(run_in(tmp_path / method, method) / "pseudo_labels/iter_1.jpg", 0, (60, 60))
    found, unshown = pictures(make_report([tmp_path]))
    assert len(found[0]) == 2 and unshown == 1


@pytest.mark.parametrize("content", [b"", b"no picture", b"GIF89a" + bytes(20)])
def test_what_is_no_picture_is_left_out(tmp_path: Path, content: bytes) -> None:
    folder = run_in(tmp_path / "a") / "pseudo_labels"
    folder.mkdir()
    (folder / "iter_1.jpg").write_bytes(content)
    assert pictures(make_report([tmp_path])) == ({0: []}, 0)
