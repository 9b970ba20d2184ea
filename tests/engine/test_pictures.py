"""The picture of pseudo labels: where each box is drawn, and in which colour."""

import numpy as np
import torch

from ssod.core.labels import BoxLabels
from ssod.engine import pictures


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
