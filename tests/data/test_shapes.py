"""Tests of the embedded dataset: determinism, honest boxes, files that agree, races and kills."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ssod.data import shapes
from ssod.data.shapes import CLASSES, draw_image, ensure_shapes
from ssod.errors import UserError

SMALL = {"num_train": 60, "num_val": 8, "num_labeled": 20}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ensure_shapes(tmp_path_factory.mktemp("data") / "shapes", **SMALL)


def read(root: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((root / "annotations" / f"{name}.json").read_text())
    return content


def digest(root: Path) -> str:
    files = sorted(p for p in root.rglob("*") if p.is_file())
    content = b"".join(str(p.relative_to(root)).encode() + p.read_bytes() for p in files)
    return hashlib.sha256(content).hexdigest()


def test_an_image_is_a_pure_function_of_its_seed() -> None:
    first, second, other = draw_image([3, 0, 5]), draw_image([3, 0, 5]), draw_image([3, 0, 6])
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    assert first[0].shape != other[0].shape or (first[0] != other[0]).any()


def test_the_generator_is_frozen() -> None:
    """If this fails, the drawing has changed: raise GENERATOR_VERSION and mend the numbers."""
    assert shapes.GENERATOR_VERSION == 6
    drawings = [draw_image([0, 0, index]) for index in range(30)]
    labels = np.concatenate([labels for _, _, labels in drawings])
    counts = np.bincount(labels, minlength=len(CLASSES)).tolist()
    assert labels[:20].tolist() == [5, 4, 5, 1, 0, 4, 2, 4, 3, 5, 4, 0, 5, 2, 4, 2, 1, 0, 4, 5]
    assert counts == [23, 17, 13, 15, 22, 19]
    # Half a pixel of freedom: another OpenCV may round some outlines another way.
    boxes = np.concatenate([boxes for _, boxes, _ in drawings])
    np.testing.assert_allclose(
        boxes.mean(axis=0),
        [66.06, 59.28, 106.92, 100.37],
        atol=0.5,
    )
    mean = np.mean([image.mean() for image, _, _ in drawings])
    assert mean == pytest.approx(113.1, abs=0.5)


def test_the_statistics_are_those_promised() -> None:
    drawings = [draw_image([7, 0, index]) for index in range(250)]
    counts = np.array([len(labels) for _, _, labels in drawings])
    assert counts.min() >= 1 and counts.max() <= 7
    assert 3.2 < counts.mean() < 3.9
    labels = np.concatenate([labels for _, _, labels in drawings])
    share = np.bincount(labels, minlength=len(CLASSES)) / len(labels)
    assert share.min() > 0.5 / len(CLASSES) and share.max() < 1.5 / len(CLASSES)
    heights, widths = np.array([image.shape[:2] for image, _, _ in drawings]).T
    assert min(heights.min(), widths.min()) == 160 and max(heights.max(), widths.max()) == 192
    assert (heights != widths).all()
    assert 0.4 < (widths > heights).mean() < 0.6
    boxes = np.concatenate([boxes for _, boxes, _ in drawings])
    diagonal = np.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
    assert diagonal.min() >= shapes.MIN_BOX_SIDE and np.percentile(diagonal, 95) > 50


def test_boxes_lie_in_the_image_and_are_large_enough() -> None:
    for index in range(100):
        image, boxes, _ = draw_image([8, 0, index])
        height, width = image.shape[:2]
        assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= (width, height)).all()
        assert (boxes[:, 2:] - boxes[:, :2] >= shapes.MIN_BOX_SIDE).all()


def test_colour_says_nothing_about_the_class() -> None:
    """Mean colour in the box, best single split by class: as good as among shuffled labels."""
    colours, labels = [], []
    for index in range(250):
        image, boxes, classes = draw_image([9, 0, index])
        for (left, top, right, bottom), label in zip(boxes.astype(int), classes, strict=True):
            colours.append(image[top:bottom, left:right].mean(axis=(0, 1)))
            labels.append(label)
    colour, label_array = np.array(colours), np.array(labels)

    def spread(of: np.ndarray) -> float:
        means = np.array([colour[of == c].mean(axis=0) for c in range(len(CLASSES))])
        return float(means.var(axis=0).sum())

    rng = np.random.default_rng(0)
    shuffled = [spread(rng.permutation(label_array)) for _ in range(200)]
    assert spread(label_array) < max(shuffled)


@pytest.mark.parametrize(
    ("name", "share"),
    # Area of the outline over the area of its circumscribed circle, closed forms.
    [("disc", 1.0), ("triangle", 3 * np.sqrt(3) / 4 / np.pi)],
)
def test_outlines_have_the_area_of_their_closed_form(name: str, share: float) -> None:
    (contour,) = shapes._outline(np.random.default_rng(0), name)
    coverage = shapes._fill([contour * 40 + 50], 100, 100)
    assert coverage.sum() == pytest.approx(share * np.pi * 40**2, rel=0.02)


def test_a_bar_is_a_rectangle_on_the_circle() -> None:
    half = np.random.default_rng(0).uniform(0.34, 0.44)
    (contour,) = shapes._outline(np.random.default_rng(0), "bar")
    sides = np.linalg.norm(contour - np.roll(contour, 1, axis=0), axis=1)
    np.testing.assert_allclose(np.linalg.norm(contour, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(sorted(sides), sorted([2 * half, 2 * np.sqrt(1 - half**2)] * 2), rtol=1e-6)


def test_a_hole_is_a_hole() -> None:
    coverage = shapes._fill(
        [c * 40 + 50 for c in shapes._outline(np.random.default_rng(0), "ring")], 100, 100
    )
    assert coverage[50, 50] == 0 and coverage[50, 87] == 1


def test_a_hidden_object_is_not_acceptable() -> None:
    def disc(radius: float, x: float) -> shapes._Shape:
        contour = shapes._polar(1.0, np.linspace(0, 6.28, 60)) * radius
        centre = np.array([x, 80], dtype=np.float32) + shapes.MARGIN
        coverage = shapes._fill([contour + centre], 160 + 96, 160 + 96)
        return shapes._Shape(0, 2 * radius, coverage, coverage > 0.5)

    assert shapes._acceptable([disc(20, 60), disc(20, 90)])
    assert not shapes._acceptable([disc(20, 60), disc(20, 65)])
    assert not shapes._acceptable([disc(20, -10)])  # cut off by the image's edge
    first, second = shapes._visible_masks([disc(20, 60), disc(20, 90)])
    assert shapes._hull(second) == (70, 60, 110, 100) or shapes._hull(second)[0] in (69, 70)
    assert not (first & second).any()


def test_the_files_agree(drawn: Path) -> None:
    everything, labeled = read(drawn, "train"), read(drawn, "train_labeled")
    unlabeled, truth = read(drawn, "train_unlabeled"), read(drawn, "train_unlabeled_truth")
    assert len(everything["images"]) == 60 and len(labeled["images"]) == 20
    assert unlabeled["annotations"] == [] and truth["annotations"]
    assert unlabeled["images"] == truth["images"]
    ids = [{i["id"] for i in part["images"]} for part in (labeled, unlabeled)]
    assert not ids[0] & ids[1] and ids[0] | ids[1] == {i["id"] for i in everything["images"]}
    together = sorted(labeled["annotations"] + truth["annotations"], key=lambda a: a["id"])
    assert together == everything["annotations"]
    assert {a["image_id"] for a in labeled["annotations"]} == ids[0]
    assert {a["category_id"] for a in labeled["annotations"]} == set(range(1, len(CLASSES) + 1))
    assert [c["name"] for c in labeled["categories"]] == list(CLASSES)


def test_the_images_on_disk_are_those_drawn(drawn: Path) -> None:
    for part, number, source in (("train", 60, 0), ("val", 8, 1)):
        content = read(drawn, part)
        assert len(content["images"]) == number
        for index in (0, number - 1):
            entry = content["images"][index]
            image = cv2.imread(str(drawn / part / entry["file_name"]))
            expected, boxes, labels = draw_image([0, source, index])
            assert image is not None and image.shape == (entry["height"], entry["width"], 3)
            # JPEG halves the chroma's resolution: compare lightness.
            difference = image.mean(axis=2) - expected.mean(axis=2)
            assert np.abs(difference).mean() < 6
            found = [a for a in content["annotations"] if a["image_id"] == entry["id"]]
            assert [a["category_id"] - 1 for a in found] == labels.tolist()
            corners = [[x, y, x + w, y + h] for x, y, w, h in (a["bbox"] for a in found)]
            assert corners == boxes.tolist()


def test_pycocotools_reads_it(drawn: Path) -> None:
    from pycocotools.coco import COCO

    coco = COCO(str(drawn / "annotations" / "val.json"))
    assert len(coco.getImgIds()) == 8 and len(coco.getAnnIds()) == len(coco.dataset["annotations"])


def test_the_same_bytes_again(drawn: Path, tmp_path: Path) -> None:
    assert digest(ensure_shapes(tmp_path / "again", **SMALL)) == digest(drawn)


def test_a_second_call_draws_nothing(drawn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "draw_dataset", None)
    assert ensure_shapes(drawn, **SMALL) == drawn


def test_a_changed_generator_redraws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = {"num_train": 3, "num_val": 1, "num_labeled": 1}
    root = ensure_shapes(tmp_path / "shapes", **tiny)
    (root / "train" / "leftover.jpg").touch()
    monkeypatch.setattr(shapes, "GENERATOR_VERSION", shapes.GENERATOR_VERSION + 1)
    assert ensure_shapes(root, **tiny) == root
    assert not (root / "train" / "leftover.jpg").exists()
    version = json.loads((root / "version.json").read_text())
    assert version["generator"] == shapes.GENERATOR_VERSION
    assert [p.name for p in tmp_path.iterdir() if "drawing" in p.name] == []


def test_the_seed_changes_the_dataset(drawn: Path, tmp_path: Path) -> None:
    other = ensure_shapes(tmp_path / "shapes", **SMALL, seed=1)
    assert read(other, "train")["annotations"] != read(drawn, "train")["annotations"]


def test_somebody_elses_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="not a drawn shapes dataset"):
        ensure_shapes(tmp_path / "photos", num_train=3, num_val=1, num_labeled=1)
    (tmp_path / "photos" / "version.json").write_text('{"app": "mine"}')
    with pytest.raises(UserError, match="not a drawn shapes dataset"):
        ensure_shapes(tmp_path / "photos", num_train=3, num_val=1, num_labeled=1)
    assert (tmp_path / "photos" / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("numbers", [(3, 1, 0), (3, 1, 3), (3, 0, 1)])
def test_impossible_numbers_are_refused(tmp_path: Path, numbers: tuple[int, int, int]) -> None:
    with pytest.raises(UserError, match="0 < num_labeled < num_train"):
        ensure_shapes(tmp_path / "shapes", *numbers)
    assert not (tmp_path / "shapes").exists()


def start(root: Path, num_train: int) -> subprocess.Popen[bytes]:
    code = (
        "import sys; from ssod.data.shapes import ensure_shapes;"
        f"ensure_shapes(sys.argv[1], num_train={num_train}, num_val=2, num_labeled=2)"
    )
    return subprocess.Popen([sys.executable, "-c", code, str(root)], stderr=subprocess.PIPE)


def test_racing_processes_all_end_well(tmp_path: Path) -> None:
    root = tmp_path / "shapes"
    processes = [start(root, 20) for _ in range(3)]
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors.decode()
    assert len(list((root / "train").iterdir())) == 20
    assert (root / "version.json").is_file()
    assert [p.name for p in tmp_path.iterdir() if "drawing" in p.name] == []


def test_the_race_ends_well_without_locks_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process finishes while this one draws, on a file system that can't lock."""
    tiny = {"num_train": 3, "num_val": 1, "num_labeled": 1}
    root = tmp_path / "shapes"
    real_draw = shapes.draw_dataset

    def no_lock(*_: object) -> None:
        raise OSError("no locks available")

    def draw_slowly(folder: Path, *numbers: int) -> None:
        real_draw(folder, *numbers)
        if not root.exists():
            real_draw(root, *numbers)

    monkeypatch.setattr(shapes.fcntl, "flock", no_lock)
    monkeypatch.setattr(shapes, "draw_dataset", draw_slowly)
    assert ensure_shapes(root, **tiny) == root
    assert len(list((root / "train").iterdir())) == 3
    assert [p.name for p in tmp_path.iterdir() if "drawing" in p.name] == []


def test_a_killed_drawing_leaves_no_half_dataset(tmp_path: Path) -> None:
    root = tmp_path / "shapes"
    process = start(root, 5000)
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob(".shapes.drawing-*/shapes/train/*.jpg")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not root.exists()
    ensure_shapes(root, num_train=3, num_val=1, num_labeled=1)
    assert len(list((root / "train").iterdir())) == 3
    assert list(tmp_path.glob(".shapes.drawing-*")) == []
