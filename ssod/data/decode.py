"""Reading an image file: the array (H, W, 3) that a viewer shows, or an error that names file and fault."""

import io
import os
import stat
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage
from PIL import ImageOps, UnidentifiedImageError

from ssod.errors import BadImageError

Image = npt.NDArray[np.uint8]

_REMOVE = "restore it from its source, or remove it from the data set"
_FAULTS = (OSError, SyntaxError, ValueError, EOFError, struct.error, PillowImage.DecompressionBombError)
_JPEG = b"\xff\xd8"
_PNG_TAIL = 64  # bytes in which a whole PNG names its end
# Markers that may follow a JPEG's first scan: DHT, DAC, SOS, DQT, DNL, DRI, APPn, COM. Before it, SOFn, too.
_AFTER_SCAN = frozenset((0xC4, 0xCC, 0xDA, 0xDB, 0xDC, 0xDD, 0xFE, *range(0xE0, 0xF0)))
_BEFORE_SCAN = _AFTER_SCAN | frozenset(range(0xC0, 0xD0))
_ORIENTATION = 0x0112  # the EXIF tag; 5 to 8 swap width and height
# By how much a JPEG decoder makes an image smaller, for a part of the work.
_REDUCED = {1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4,
            8: cv2.IMREAD_REDUCED_COLOR_8}  # fmt: skip
REDUCTIONS = tuple(_REDUCED)


class BadImage(NamedTuple):
    """A file that can't be used as an image: where it lies, and why in a few words."""

    path: str
    reason: str


def read_image(path: str | Path) -> Image:
    """An image (H, W, 3) uint8, BGR, as a viewer shows it.

    Turned as its EXIF orientation says; grey-scale, palette, CMYK and 1-bit images become BGR; transparent
    pixels are shown over white, as a printed page would; 16 bits become 8 by their upper byte, never
    clipped. Raises BadImageError for a file that is missing, unreadable, empty, cut short or no image.

    What is not found: damage within a file that leaves a readable stream (zeroed blocks in the middle of a
    JPEG; most damage within a WebP). No decoder at hand reports that.
    """
    return read_reduced(path)[0]


def read_reduced(path: str | Path, choose: Callable[[int, int], int] | None = None) -> tuple[Image, int]:
    """An image as from `read_image`, and how many times smaller than the file's it is: 1, 2, 4 or 8.

    choose: given width and height as displayed, says which of REDUCTIONS a JPEG is decoded with; each pixel
    is then the mean, about, of that many by that many. Other formats are decoded as they are.
    """
    path = str(path)
    try:
        fault = stat_fault(os.stat(path))  # before it is opened: a pipe would wait for a writer
        data = Path(path).read_bytes() if fault is None else b""
    except OSError as error:
        raise _bad(f"cannot read image {path} ({error.strerror})", path, str(error.strerror)) from None
    if fault is not None:
        raise _bad(f"image {path} is {fault}", path, fault)
    _check_structure(path, data)
    image = None if _plain_for_opencv(data) else _with_pillow(path, data)
    reduction = choose(*image_size(path, data)) if choose and data.startswith(_JPEG) else 1
    if image is None:
        try:
            image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), _REDUCED[reduction])
        except cv2.error:  # such as more pixels than OpenCV takes
            image = None
    if image is None:
        text = f"{path} is not an image that OpenCV can read, or is damaged"
        raise _bad(text, path, "not an image, or damaged")
    return np.asarray(image, dtype=np.uint8), reduction


def image_size(path: str, data: bytes | None = None) -> tuple[int, int]:
    """(width, height) in pixels as displayed, after EXIF orientation, from the file's header alone.

    data: the file's bytes, where they have been read. The orientation of a PNG that says it behind its pixels
    is not seen.
    Raises BadImageError for a file that can't be opened or whose header is not that of an image.
    """
    try:
        with PillowImage.open(path if data is None else io.BytesIO(data)) as image:
            width, height = image.size
            turned = _quarter_turned(image)
    except OSError as error:
        reason = error.strerror or "not an image"
        raise _bad(f"cannot read image {path} ({reason})", path, reason) from None
    except _FAULTS as error:
        reason = " ".join(str(error).split()) or "not an image"
        raise _bad(f"cannot read image {path} ({reason})", path, reason) from None
    return (height, width) if turned else (width, height)


def _quarter_turned(image: PillowImage.Image) -> bool:
    """Whether EXIF says that width and height change places; damaged EXIF says nothing."""
    if image.format == "TIFF" or "exif" not in image.info:
        return False  # Pillow turns a TIFF itself; for a PNG without EXIF it would decode all of it
    try:
        return image.getexif().get(_ORIENTATION) in (5, 6, 7, 8)
    except Exception:  # whatever its parser stumbles over
        return False


def stat_fault(status: os.stat_result) -> str | None:
    """What is wrong with a file by its status alone; None if nothing is."""
    if not stat.S_ISREG(status.st_mode):
        return "not a file"
    return "empty (0 bytes)" if status.st_size == 0 else None


def _bad(text: str, path: str, reason: str) -> BadImageError:
    return BadImageError(f"{text}: {_REMOVE}", path, reason)


# ---------------------------------------------------------------- whole or damaged


def _check_structure(path: str, data: bytes) -> None:
    """Raises BadImageError for a file whose outer structure is not that of a whole image.

    Formats without markers are left to their decoders. An odd structure (such as a PNG with data after its
    end) is decoded twice: Pillow misses bytes that OpenCV silently makes grey.
    """
    if data.startswith(_JPEG):
        whole = _whole_jpeg(data)
    elif data.startswith(b"\x89PNG"):
        whole = b"IEND" in data[-_PNG_TAIL:] or None
    else:
        return
    if whole is None:
        try:
            with PillowImage.open(io.BytesIO(data)) as image:
                image.load()
            whole = True
        except _FAULTS:
            whole = False
    if not whole:
        raise _bad(f"image {path} is truncated or damaged", path, "truncated or damaged")


def _whole_jpeg(data: bytes) -> bool | None:
    """Whether markers lead from scan to scan up to the image's end; None for one that does not belong there.

    Within a scan 0xFF is followed by 0, a restart or another 0xFF; overwritten bytes rarely keep to that.
    """
    pixels = np.frombuffer(data, dtype=np.uint8)
    places = np.flatnonzero(pixels[:-1] == 0xFF)
    after = pixels[places + 1]
    places = places[(after != 0) & (after != 0xFF) & ((after < 0xD0) | (after > 0xD7))]
    allowed, position = _BEFORE_SCAN, 2
    while True:
        next_place = int(np.searchsorted(places, position))
        if next_place == len(places):
            return False
        place = int(places[next_place])
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        if marker == 0xD9:
            return True
        if marker not in allowed or length < 2:
            return None
        if marker == 0xDA:
            allowed = _AFTER_SCAN
        position = place + 2 + length


# ---------------------------------------------------------------- which decoder


def _plain_for_opencv(data: bytes) -> bool:
    """Whether OpenCV is known to show the file as a viewer does: JPEG, and PNG without transparency."""
    if data.startswith(b"\x89PNG"):
        begin = data.find(b"IDAT")
        return data[25:26] in (b"\x00", b"\x02", b"\x03") and b"tRNS" not in data[: max(begin, 0)]
    return data.startswith(_JPEG)


def _with_pillow(path: str, data: bytes) -> Any:
    """The image where OpenCV would drop transparency, or a WebP's orientation; None for all others."""
    try:
        with PillowImage.open(io.BytesIO(data)) as image:
            clear = image.has_transparency_data and not image.mode.startswith("I")
            if not clear and (image.format != "WEBP" or "exif" not in image.info):
                return None
            image.load()
            shown = _upright(image).convert("RGBA")
    except UnidentifiedImageError:
        return None
    except _FAULTS:
        raise _bad(f"image {path} is truncated or damaged", path, "truncated or damaged") from None
    page = PillowImage.new("RGBA", shown.size, (255, 255, 255, 255))
    page.alpha_composite(shown)
    return np.ascontiguousarray(np.asarray(page.convert("RGB"))[:, :, ::-1])


def _upright(image: PillowImage.Image) -> PillowImage.Image:
    """The decoded image, turned as its EXIF says; as it is where that is damaged."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # whatever its parser stumbles over
        return image


def as_loaded(image: Any, shape: tuple[int, ...] | None = None) -> dict[str, Any]:
    """What a pipeline's record says of an image that no transform has touched yet.

    shape: its height and width in the file, where it was decoded smaller. The homography starts here in
    float64, so that it is there even when no transform touches it and so that mmdet's float32 factors are
    composed in float64.
    """
    shape = image.shape[:2] if shape is None else shape
    return dict(
        img=image,
        img_shape=shape,
        ori_shape=shape,
        scale_factor=(1.0, 1.0),
        flip=False,
        flip_direction=None,
        homography_matrix=np.eye(3),
    )
