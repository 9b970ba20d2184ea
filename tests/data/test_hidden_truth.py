"""The hidden truth: which boxes an image has, found by its name, and where a view shows them."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ssod.data.hidden_truth import HiddenTruth, project
from ssod.errors import UserError


def write(path: Path, images: list[str], annotations: list[dict[str, Any]], more: Any = None) -> str:
    content = dict(
        images=[dict(id=10 + number, file_name=name) for number, name in enumerate(images)],
        annotations=annotations,
        categories=[dict(id=7, name="cat"), dict(id=3, name="dog"), dict(id=5, name="cow")],
    )
    path.write_text(json.dumps(content | (more or {})))
    return str(path)


def one(image: Any, category: Any, box: Any, **more: Any) -> dict[str, Any]:
    return dict(image_id=image, category_id=category, bbox=box, **more)


@pytest.fixture
def file(tmp_path: Path) -> str:
    annotations = [
        one(11, 3, [1, 2, 30, 40]),
        one(10, 7, [5, 6, 7, 8]),
        one(11, 7, [0, 0, 9, 9], iscrowd=1),
        one(11, 5, [0, 0, 50, 50]),  # of no class that is trained
        one(11, 7, [4, 4, 0, 9]),  # of no size
        one(99, 7, [4, 4, 9, 9]),  # of no image
    ]
    return write(tmp_path / "truth.json", ["a.jpg", "b.jpg", "empty.jpg", "x/a.jpg"], annotations)


def test_boxes_have_the_numbers_of_the_classes_and_corners(file: str) -> None:
    truth = HiddenTruth(file, ("dog", "cat")).of("/somewhere/train/b.jpg")
    assert truth is not None
    assert truth.boxes.tolist() == [[1, 2, 31, 42], [0, 0, 9, 9]]
    assert truth.classes.tolist() == [0, 1] and truth.crowd.tolist() == [False, True]


def test_an_image_without_boxes_is_known_and_a_foreign_one_is_not(file: str) -> None:
    hidden = HiddenTruth(file, ("cat", "dog"))
    empty = hidden.of("empty.jpg")
    assert empty is not None and empty.boxes.shape == (0, 4)
    assert hidden.of("/somewhere/c.jpg") is None and len(hidden) == 4


def test_folders_tell_images_of_one_name_apart(file: str, tmp_path: Path) -> None:
    hidden = HiddenTruth(file, ("cat",))
    outside, inside = hidden.of("/data/a.jpg"), hidden.of("/data/x/a.jpg")
    assert outside is not None and outside.boxes.tolist() == [[5, 6, 12, 14]]
    assert inside is not None and len(inside.boxes) == 0
    twice = HiddenTruth(write(tmp_path / "twice.json", ["a.jpg", "a.jpg"], []), ("cat",))
    assert twice.of("/data/a.jpg") is None, "which of the two it is, nobody knows"


def test_a_view_shows_what_its_homography_says(file: str) -> None:
    """Twice as large, moved 10 px to the left, and cut at the border; what leaves is no truth of the view."""
    matrix = np.array([[2.0, 0, -10], [0, 2, 0], [0, 0, 1]])
    truth = HiddenTruth(file, ("dog", "cat")).of("b.jpg")
    assert truth is not None
    seen = project(truth, matrix, (60, 100))
    assert seen.boxes.tolist() == [[0, 4, 52, 60], [0, 0, 8, 18]]
    away = project(truth, np.array([[1.0, 0, -9], [0, 1, 0], [0, 0, 1]]), (60, 100))
    assert away.boxes.tolist() == [[0, 2, 22, 42]] and away.classes.tolist() == [0]


def test_a_sample_names_its_image_and_its_view(file: str) -> None:
    sample = SimpleNamespace(img_path="/d/a.jpg", homography_matrix=np.eye(3), img_shape=(20, 20, 3))
    seen = HiddenTruth(file, ("cat",)).in_view(sample)
    assert seen is not None and seen.boxes.tolist() == [[5, 6, 12, 14]]
    sample.img_path = "/d/other.jpg"
    assert HiddenTruth(file, ("cat",)).in_view(sample) is None


@pytest.mark.parametrize(
    ("more", "classes", "said"),
    [
        ({}, ("horse",), "none of the classes"),
        ({"categories": 1}, ("cat",), "no list 'categories'"),
        ({"annotations": [{"image_id": 1}]}, ("cat",), "record 0 of 'annotations'"),
        ({"images": [{"id": 1}]}, ("cat",), "file_name"),
    ],
)
def test_a_file_that_is_no_truth_is_refused(
    tmp_path: Path, more: dict[str, Any], classes: tuple[str, ...], said: str
) -> None:
    path = write(tmp_path / "truth.json", ["a.jpg"], [], more)
    with pytest.raises(UserError, match=said):
        HiddenTruth(path, classes)


@pytest.mark.parametrize(
    ("section", "record"),
    [
        *(
            ("annotations", one(10, 7, box))
            for box in ([], [1, 2, 3], ["a", 1, 2, 3], 5, [0, 0, 1, math.nan])
        ),
        ("annotations", one(10, 7, [0, 0, 1, 10**400])),
        ("annotations", one([1], 7, [1, 2, 3, 4])),
        ("annotations", one(10, {}, [1, 2, 3, 4])),
        ("annotations", "box"),
        ("categories", {"name": "cat"}),
        ("categories", {"id": [7], "name": "cat"}),
        ("categories", "cat"),
        ("images", {"id": 10, "file_name": 5}),
        ("images", {"id": [10], "file_name": "a.jpg"}),
    ],
)
def test_a_record_of_another_form_is_named(tmp_path: Path, section: str, record: Any) -> None:
    path = write(tmp_path / "truth.json", ["a.jpg"], [one(10, 7, [1, 2, 3, 4])], {section: [record]})
    with pytest.raises(UserError, match=f"record 0 of '{section}' in .*truth.json has no usable"):
        HiddenTruth(path, ("cat",))


def test_a_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"does not exist: .*hidden_truth=None"):
        HiddenTruth(str(tmp_path / "none.json"), ("cat",))
