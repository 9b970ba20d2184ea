"""The picture of pseudo labels: where each box is drawn, and in which colour."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from ssod.core.labels import BoxLabels
from ssod.data.hidden_truth import HiddenTruth
from ssod.engine.records import pictures
from ssod.errors import RunError


def labels(boxes: list[list[float]]) -> BoxLabels:
    count = len(boxes)
    return BoxLabels.pad([torch.tensor(boxes)], [torch.zeros(count, dtype=torch.int64)])


def views() -> dict[str, dict[str, list[torch.Tensor]]]:
    """One black image of 400 x 500, larger than what would be enlarged, in both views."""
    image = torch.zeros(3, 400, 500, dtype=torch.uint8)
    return {"weak": {"inputs": [image]}, "strong": {"inputs": [image.clone()]}}


def test_boxes_are_outlined_in_the_colour_of_what_they_teach() -> None:
    weak = labels([[100, 120, 180, 200]])
    strong = labels([[50, 60, 130, 140], [300, 60, 380, 140]])
    masks = {"rpn": torch.tensor([[True, False]]), "cls": torch.tensor([[True, False]])}
    picture = pictures.draw(views(), {"weak": weak, "strong": strong, "masks": masks}, ("disc",))
    right = 500 + 6  # the strong view stands right of the weak one and a gap
    assert tuple(picture[160, 100]) == pictures.TEACHER_COLOUR
    assert tuple(picture[100, right + 50]) == pictures.MASK_COLOURS[0]
    assert tuple(picture[100, right + 52]) == pictures.MASK_COLOURS[1]
    assert tuple(picture[100, right + 300]) == pictures.UNUSED_COLOUR
    assert tuple(picture[160, 140]) == (0, 0, 0)


def test_small_views_are_enlarged_with_their_boxes() -> None:
    batch = {name: {"inputs": [torch.zeros(3, 160, 200, dtype=torch.uint8)]} for name in ("weak", "strong")}
    found = labels([[40, 50, 80, 90]])
    picture = pictures.draw(batch, {"weak": found, "strong": found, "masks": {}}, ("disc",))
    assert tuple(picture[140, 80]) == pictures.TEACHER_COLOUR


def test_invalid_slots_are_not_drawn() -> None:
    found = labels([[40, 50, 80, 90]]).where(torch.tensor([[False]]))
    picture = pictures.draw(views(), {"weak": found, "strong": found, "masks": None}, ())
    assert not np.any(picture[:400, :500])


def test_labels_of_a_file_are_drawn_on_the_strong_view_alone() -> None:
    batch = {"strong": views()["strong"]}
    found = labels([[50, 60, 130, 140]])
    masks = {"all losses": torch.tensor([[True]])}
    picture = pictures.draw(batch, {"strong": found, "masks": masks}, ("disc",))
    assert tuple(picture[100, 50]) == pictures.MASK_COLOURS[0]
    legend = picture[406:]
    assert not (legend == pictures.TEACHER_COLOUR).all(axis=-1).any(), "there is no teacher's view to explain"


def test_hidden_truth_is_dashed_in_both_views(tmp_path: Path) -> None:
    """Where each view's homography shows it; the dashes leave gaps."""
    content = dict(
        images=[dict(id=1, file_name="a.png")],
        annotations=[dict(image_id=1, category_id=1, bbox=[40, 60, 200, 100])],
        categories=[dict(id=1, name="disc")],
    )
    (tmp_path / "truth.json").write_text(json.dumps(content))
    batch: dict[str, Any] = views()
    for name, shift in (("weak", 0.0), ("strong", 100.0)):
        moved = np.array([[1, 0, shift], [0, 1, 0], [0, 0, 1]])
        sample = SimpleNamespace(img_path="/d/a.png", homography_matrix=moved, img_shape=(400, 500))
        batch[name]["data_samples"] = [sample]
    nothing = labels([[1, 1, 2, 2]]).where(torch.tensor([[False]]))
    found = {"weak": nothing, "strong": nothing, "masks": {}}
    picture = pictures.draw(batch, found, ("disc",), HiddenTruth(str(tmp_path / "truth.json"), ("disc",)))
    for left in (40, 500 + 6 + 140):
        top = (picture[60, left : left + 201] == pictures.TRUTH_COLOUR).all(axis=-1)
        assert 0.3 < top.mean() < 0.7 and top[0], "half of the line"
        assert (picture[60:161, left] == pictures.TRUTH_COLOUR).all(axis=-1).any()
        assert not picture[100, left + 20 : left + 180].any(), "an outline, not a filled box"
    legend = picture[406:]
    assert (legend == pictures.TRUTH_COLOUR).all(axis=-1).any()
    without = pictures.draw(batch, found, ("disc",))
    assert not (without[:400, :500] == pictures.TRUTH_COLOUR).all(axis=-1).any()


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((65_500, 4), (65_500, 4)), ((131_000, 8), (65_500, 4)), ((2, 70_000), (1, 65_500)), ((9, 9), (9, 9))],
    ids=str,
)
def test_a_picture_too_large_for_a_jpeg_becomes_smaller(
    shape: tuple[int, int], expected: tuple[int, int], tmp_path: Path
) -> None:
    made = pictures.shrunk(np.full((*shape, 3), 128, np.uint8))
    assert made.shape == (*expected, 3)
    pictures.write_jpeg(tmp_path / "a.jpg", made, 90)
    assert cv2.imread(str(tmp_path / "a.jpg")).shape == made.shape


def test_a_picture_that_is_not_written_is_an_error(tmp_path: Path) -> None:
    """OpenCV says so by a flag alone."""
    with pytest.raises(RunError, match=r"a picture of 8 x 65501 px can't be written to .*a\.jpg"):
        pictures.write_jpeg(tmp_path / "a.jpg", np.zeros((65_501, 8, 3), np.uint8), 90)
    assert not list(tmp_path.iterdir())
