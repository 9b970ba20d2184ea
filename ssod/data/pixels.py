"""mmdet's pixel operations with the same results in a fraction of the time.

Registered under mmdet's names in the scope "ssod", so that every pipeline that says `Equalize` has them. What
maps each value of a channel to another one goes through a table of 256; nothing becomes a wider type and back
on the way. mmdet's classes draw, record the homography and move the boxes, as before.
"""

from __future__ import annotations

from typing import Any

import cv2
import mmcv
import numpy as np
import numpy.typing as npt
from mmdet.datasets import transforms as mmdet_transforms

from ssod.registry import TRANSFORMS

Image = npt.NDArray[np.uint8]
Record = dict[str, Any]

FLIP_CODES = {"horizontal": 1, "vertical": 0, "diagonal": -1}


def ramp() -> Image:
    """All values a channel can have, as an image (256, 1, 3)."""
    return np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(256, 1, 3)


def apply_tables(image: Image, tables: npt.NDArray[Any]) -> Image:
    """The image (H, W, 3) with its values looked up: one table (256,) for all channels or (256, 3)."""
    tables = tables.astype(np.uint8)
    alike = tables.ndim == 1 or bool((tables == tables[:, :1]).all())
    # One table is twice as fast as three.
    table = tables.reshape(256, -1)[:, 0] if alike else tables.reshape(1, 256, 3)
    return np.asarray(cv2.LUT(image, np.ascontiguousarray(table)), dtype=np.uint8)


def blend(image: Image, other: Image, factor: float) -> Image:
    """image * factor + other * (1 - factor), cut to 0 and 255, fractions dropped as mmcv does."""
    mixed = cv2.addWeighted(image, factor, other, 1 - factor, 0, dtype=cv2.CV_32F)
    result: Image = np.clip(mixed, 0, 255).astype(np.uint8)
    return result


def shift(image: npt.NDArray[Any], right: int, down: int, fill: Any) -> npt.NDArray[Any]:
    """The image moved by whole pixels; what comes into view has the value `fill`."""
    height, width = image.shape[:2]
    seen = image[max(-down, 0) : height - max(down, 0), max(-right, 0) : width - max(right, 0)]
    if not seen.size:
        return np.full_like(image, fill, order="C")
    border = max(down, 0), max(-down, 0), max(right, 0), max(-right, 0)
    moved: npt.NDArray[Any] = cv2.copyMakeBorder(seen, *border, cv2.BORDER_CONSTANT, value=fill)
    return moved


def planes_of(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The image (H, W, 3) as a look at three planes, a new array (3, H, W): transposing it costs nothing.

    cv2.split is twenty times as fast as the transposition of torch or NumPy.
    """
    planes: npt.NDArray[Any] = np.empty((image.shape[2], *image.shape[:2]), dtype=image.dtype)
    cv2.split(image, list(planes))
    return planes.transpose(1, 2, 0)


@TRANSFORMS.register_module()
class RandomFlip(mmdet_transforms.RandomFlip):  # type: ignore[misc]
    """mmdet's flip, whose result lies in memory like any image.

    mmdet's is a mirrored look at the old one, which the next step copies pixel by pixel: 6 ms instead of 0.1.
    """

    def _flip(self, results: Record) -> None:
        image = results["img"]
        super()._flip(results)
        results["img"] = cv2.flip(image, FLIP_CODES[results["flip_direction"]])


@TRANSFORMS.register_module()
class TranslateX(mmdet_transforms.TranslateX):  # type: ignore[misc]
    """mmdet's shift to the side; it is by whole pixels, so there is nothing to interpolate."""

    def _transform_img(self, results: Record, mag: float) -> None:
        pixels = int(results["img_shape"][1] * mag)
        results["img"] = shift(results["img"], pixels, 0, self.img_border_value)


@TRANSFORMS.register_module()
class TranslateY(mmdet_transforms.TranslateY):  # type: ignore[misc]
    """mmdet's shift up or down, by whole pixels."""

    def _transform_img(self, results: Record, mag: float) -> None:
        pixels = int(results["img_shape"][0] * mag)
        results["img"] = shift(results["img"], 0, pixels, self.img_border_value)


class OnBytes:
    """A colour operation that has a faster way for uint8; other images, such as floats, go mmdet's way."""

    def _transform_img(self, results: Record, mag: float) -> None:
        if results["img"].dtype == np.uint8:
            results["img"] = self.on_bytes(results["img"], mag)
        else:
            super()._transform_img(results, mag)  # type: ignore[misc]

    def on_bytes(self, image: Image, mag: float) -> Image:
        """The image (H, W, 3) after the operation at a magnitude."""
        raise NotImplementedError


@TRANSFORMS.register_module()
class Brightness(OnBytes, mmdet_transforms.Brightness):  # type: ignore[misc]
    """mmdet's brightness, through a table."""

    def on_bytes(self, image: Image, mag: float) -> Image:
        """The image with all values times `mag`."""
        return apply_tables(image, mmcv.adjust_brightness(ramp(), mag)[:, 0])


@TRANSFORMS.register_module()
class Solarize(OnBytes, mmdet_transforms.Solarize):  # type: ignore[misc]
    """mmdet's solarization, through a table."""

    def on_bytes(self, image: Image, mag: float) -> Image:
        """The image with values from `mag` on inverted."""
        return apply_tables(image, mmcv.solarize(ramp(), mag)[:, 0])


@TRANSFORMS.register_module()
class Posterize(OnBytes, mmdet_transforms.Posterize):  # type: ignore[misc]
    """mmdet's posterization, through a table."""

    def on_bytes(self, image: Image, mag: float) -> Image:
        """The image with the `mag` highest bits of its values."""
        return apply_tables(image, mmcv.posterize(ramp(), int(np.ceil(mag)))[:, 0])


@TRANSFORMS.register_module()
class Contrast(OnBytes, mmdet_transforms.Contrast):  # type: ignore[misc]
    """mmdet's contrast, through a table."""

    def on_bytes(self, image: Image, mag: float) -> Image:
        """The image with distances to the mean grey value times `mag`."""
        grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        mean = round(cv2.sumElems(grey)[0] / grey.size)
        return apply_tables(image, blend(ramp(), np.full((256, 1, 3), mean, np.uint8), mag)[:, 0])


@TRANSFORMS.register_module()
class Color(OnBytes, mmdet_transforms.Color):  # type: ignore[misc]
    """mmdet's colour balance."""

    def on_bytes(self, image: Image, mag: float) -> Image:
        """The image with distances to its own grey picture times `mag`."""
        grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
        return np.asarray(cv2.addWeighted(image, mag, grey, 1 - mag, 0), dtype=np.uint8)


@TRANSFORMS.register_module()
class Sharpness(OnBytes, mmdet_transforms.Sharpness):  # type: ignore[misc]
    """mmdet's sharpness."""

    def on_bytes(self, image: Image, mag: float) -> Image:
        """The image with distances to its smoothed picture times `mag`."""
        kernel = np.array([[1.0, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13  # Pillow's SMOOTH
        return blend(image, np.asarray(cv2.filter2D(image, -1, kernel), dtype=np.uint8), mag)


@TRANSFORMS.register_module()
class AutoContrast(OnBytes, mmdet_transforms.AutoContrast):  # type: ignore[misc]
    """mmdet's stretching of each channel to 0 and 255, through tables."""

    def on_bytes(self, image: Image, mag: float) -> Image:
        """The image with each channel stretched; there is no magnitude."""
        return apply_tables(image, np.stack([_stretched(channel) for channel in cv2.split(image)], 1))


@TRANSFORMS.register_module()
class Equalize(OnBytes, mmdet_transforms.Equalize):  # type: ignore[misc]
    """mmdet's equalisation of each channel, through tables."""

    def on_bytes(self, image: Image, mag: float) -> Image:
        """The image with each channel equalised; there is no magnitude."""
        return apply_tables(image, np.stack([_equalized(channel) for channel in cv2.split(image)], 1))


def _stretched(channel: Image) -> npt.NDArray[Any]:
    """The table (256,) that maps a channel's darkest value to 0 and its brightest to 255."""
    low, high, _, _ = cv2.minMaxLoc(channel)
    table = np.arange(256)
    if low >= high:
        return table
    scale = 255.0 / (high - low)
    stretched: npt.NDArray[Any] = np.clip(table * scale - low * scale, 0, 255)
    return stretched


def _equalized(channel: Image) -> npt.NDArray[Any]:
    """The table (256,) that makes a channel's values equally frequent, as Pillow defines it."""
    counts = cv2.calcHist([channel], [0], None, [256], [0, 256]).ravel().astype(np.int64)
    step = int(counts.sum() - counts[counts > 0][-1]) // 255
    if not step:
        return np.arange(256)
    below = np.concatenate(([0], np.cumsum(counts)[:-1] + step // 2))
    below[1:] //= step
    table: npt.NDArray[Any] = np.minimum(below, 255)
    return table
