"""A picture of an image with named, scored boxes, one colour for each class; legible at any size."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFont

Image = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]  # RGB
# Okabe and Ito's colours, told apart with any kind of colour vision; without black, lost on dark images.
OKABE_ITO: tuple[Colour, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
MIN_SIDE = 480  # px of the longer side; smaller images are enlarged, or names could not be read
LINES_PER_SIDE = 320  # a line is this part of the longer side
LINES_PER_TEXT = 6  # and text so many lines high


def palette(num_classes: int) -> list[Colour]:
    """A colour for each class; they repeat after seven."""
    return [OKABE_ITO[index % len(OKABE_ITO)] for index in range(num_classes)]


def enlargement(height: int, width: int) -> int:
    """How many times larger than the image its picture is."""
    return max(1, -(-MIN_SIDE // max(height, width)))


def draw_boxes(image: Image, boxes: Sequence[Sequence[float]], texts: Sequence[str], colours: Any) -> Image:
    """The image (H, W, 3) BGR, enlarged if small, with boxes and texts; the first are on top.

    boxes: (left, top, right, bottom) in pixels of the image · colours: RGB, one for each box. A line and its
    dark rim lie centred on the box's edges, a text above its box, or in it where the image ends.
    """
    times = enlargement(*image.shape[:2])
    pixels = np.ascontiguousarray(image)
    if times > 1:
        pixels = np.asarray(
            cv2.resize(pixels, None, fx=times, fy=times, interpolation=cv2.INTER_CUBIC), dtype=np.uint8
        )
    line = max(1, round(max(pixels.shape[:2]) / LINES_PER_SIDE))
    page = PillowImage.fromarray(pixels[:, :, ::-1])
    pen = ImageDraw.Draw(page)
    order = range(len(boxes) - 1, -1, -1)
    for index in order:
        _outline(pen, [times * value for value in boxes[index]], colours[index], line)
    font = _font(max(11, LINES_PER_TEXT * line))
    for index in order:
        _label(pen, page.size, [times * value for value in boxes[index]], texts[index], colours[index], font)
    return np.ascontiguousarray(np.asarray(page)[:, :, ::-1])


def _outline(pen: Any, box: Sequence[float], colour: Colour, line: int) -> None:
    """A rectangle with a rim, so that it is seen on any background."""
    left, top, right, bottom = box
    for grown, width, ink in ((line / 2 + 1, line + 2, (0, 0, 0)), (line / 2, line, colour)):
        outer = (left - grown, top - grown, max(right, left) + grown, max(bottom, top) + grown)
        pen.rectangle([round(value) for value in outer], outline=ink, width=width)


def _label(
    pen: Any, size: tuple[int, int], box: Sequence[float], text: str, colour: Colour, font: Any
) -> None:
    """The text on a ground of the box's colour, wholly within the image if that is large enough."""
    left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
    margin = max(1, (bottom - top) // 6)
    width, height = right - left + 2 * margin, bottom - top + 2 * margin
    x = min(max(round(box[0]), 0), max(size[0] - width, 0))
    above = round(box[1]) - height
    y = above if above >= 0 else min(max(round(box[1]), 0), max(size[1] - height, 0))
    pen.rectangle((x, y, x + width, y + height), fill=colour)
    dark = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 100
    ink = (0, 0, 0) if dark else (255, 255, 255)
    pen.text((x + margin - left, y + margin - top), text, fill=ink, font=font)


@cache
def _font(height: int) -> Any:
    """matplotlib's font, which has more letters than OpenCV's."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf")), height)
