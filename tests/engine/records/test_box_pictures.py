"""Boxes on pictures: where lines lie and how wide they are, names that stay in the image and can be read."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from ssod.engine.records.box_pictures import OKABE_ITO, draw_boxes, enlargement, palette

ORANGE, BLUE = OKABE_ITO[0], OKABE_ITO[4]


def grey(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 128, dtype=np.uint8)


def inked(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Where a picture (BGR) has exactly this colour (RGB)."""
    found: np.ndarray = (picture == np.array(colour[::-1])).all(axis=-1)
    return found


@pytest.mark.parametrize(("side", "line"), [(640, 2), (1280, 4), (3200, 10)])
def test_lines_lie_on_the_edges_and_grow_with_the_image(side: int, line: int) -> None:
    box = (side * 0.25, side * 0.5, side * 0.75, side * 0.875)
    picture = draw_boxes(grey(side, side), [box], [""], [ORANGE])
    assert picture.shape == (side, side, 3)
    row = inked(picture, ORANGE)[int(side * 0.6)]
    runs = np.split(np.flatnonzero(row), np.flatnonzero(np.diff(np.flatnonzero(row)) > 1) + 1)
    assert [len(run) for run in runs] == [line, line]
    for run, edge in zip(runs, (box[0], box[2]), strict=True):
        assert run.mean() + 0.5 == pytest.approx(edge, abs=line / 2 + 0.5)


def test_small_images_are_enlarged_and_large_ones_are_not() -> None:
    assert [enlargement(*size) for size in ((160, 120), (240, 480), (480, 480), (3000, 2000))] == [3, 1, 1, 1]
    picture = draw_boxes(grey(100, 120), [(30, 40, 90, 80)], [""], [BLUE])
    assert picture.shape == (400, 480, 3)
    rows, columns = np.nonzero(inked(picture, BLUE))
    assert (columns.min(), columns.max()) == pytest.approx((4 * 30, 4 * 90), abs=3)
    assert rows.max() == pytest.approx(4 * 80, abs=3)


def test_without_boxes_the_pixels_are_the_images() -> None:
    image = np.random.default_rng(0).integers(0, 255, (500, 600, 3), dtype=np.uint8)
    assert np.array_equal(draw_boxes(image, [], [], []), image)


CORNERS = [(5, 5, 90, 90), (560, 3, 638, 200), (300, 0, 420, 60), (-4, 440, 60, 479)]


@pytest.mark.parametrize("box", CORNERS)
def test_a_name_is_wholly_in_the_image(box: tuple[float, ...]) -> None:
    """Its ground is as large as that of a name in the middle."""

    def ground(where: tuple[float, ...]) -> int:
        picture = draw_boxes(grey(480, 640), [where], ["platelet 0.87"], [ORANGE])
        bare = draw_boxes(grey(480, 640), [where], [""], [ORANGE])
        return int((picture != bare).any(axis=-1).sum())

    assert ground(box) == pytest.approx(ground((300, 200, 420, 300)), rel=0.12)


@pytest.mark.parametrize("colour", OKABE_ITO)
def test_names_stand_out_from_their_ground(colour: tuple[int, int, int]) -> None:
    """A contrast of 4.5, as the W3C asks for text."""
    picture = draw_boxes(grey(480, 640), [(100, 100, 400, 400)], ["cell 0.50"], [colour])
    ground = picture[84:96, 102:170]
    ink = (0, 0, 0) if inked(ground, (0, 0, 0)).any() else (255, 255, 255)
    assert inked(ground, ink).any()
    light, dark = sorted((luminance(colour), luminance(ink)), reverse=True)
    assert (light + 0.05) / (dark + 0.05) > 4.5


def luminance(colour: Any) -> float:
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in np.array(colour) / 255]
    return float(np.dot(parts, (0.2126, 0.7152, 0.0722)))


def test_the_first_box_is_on_top() -> None:
    box = (100, 100, 300, 300)
    first = draw_boxes(grey(480, 640), [box, box], ["", ""], [ORANGE, BLUE])
    assert inked(first, ORANGE).any() and not inked(first, BLUE)[:, 102:].any()


def test_neighbouring_classes_differ() -> None:
    assert len(set(palette(7))) == 7 and all(one != other for one, other in pairwise(palette(80)))


def test_letters_beyond_ascii_are_drawn() -> None:
    """OpenCV's font would show question marks for both."""
    seen = [draw_boxes(grey(480, 640), [(9, 99, 300, 300)], [text], [ORANGE]) for text in ("Größe", "Gr??e")]
    assert not np.array_equal(*seen)
