"""Decoding against Pillow, the viewer: every kind of file becomes the same BGR bytes; faults are named."""

import io
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from ssod.data.decode import image_size, read_image
from ssod.errors import BadImageError

COARSE = np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8)
PICTURE = Image.fromarray(cv2.resize(COARSE, (64, 48)))
FADE = Image.fromarray(np.tile(np.linspace(0, 255, 64).astype(np.uint8), (48, 1)))
GREY = PICTURE.convert("L")
TURNED = Image.Exif()
TURNED[0x0112] = 6


def with_alpha(image: Image.Image) -> Image.Image:
    image = image.copy()
    image.putalpha(FADE)
    return image


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


CORNER = tuple(int(value) for value in np.asarray(PICTURE)[0, 0])
KINDS = {
    "jpeg": encoded(PICTURE, "JPEG"),
    "jpeg progressive": encoded(PICTURE, "JPEG", progressive=True),
    "jpeg restarts": encoded(PICTURE, "JPEG", restart_marker_rows=1),
    "jpeg grey": encoded(GREY, "JPEG"),
    "jpeg cmyk": encoded(PICTURE.convert("CMYK"), "JPEG", quality=95),
    "jpeg turned": encoded(PICTURE, "JPEG", exif=TURNED),
    "png": encoded(PICTURE, "PNG"),
    "png turned": encoded(PICTURE, "PNG", exif=TURNED),
    "png grey": encoded(GREY, "PNG"),
    "png 1-bit": encoded(PICTURE.convert("1"), "PNG"),
    "png palette": encoded(PICTURE.quantize(16), "PNG"),
    "png palette, one clear": encoded(PICTURE.quantize(16), "PNG", transparency=3),
    "png rgb, one clear": encoded(PICTURE, "PNG", transparency=CORNER),
    "png grey, one clear": encoded(GREY, "PNG", transparency=int(np.asarray(GREY)[0, 0])),
    "png rgba": encoded(with_alpha(PICTURE), "PNG"),
    "png rgba turned": encoded(with_alpha(PICTURE), "PNG", exif=TURNED),
    "png la": encoded(with_alpha(GREY), "PNG"),
    "webp": encoded(PICTURE, "WEBP", lossless=True),
    "webp rgba": encoded(with_alpha(PICTURE), "WEBP", lossless=True),
    "webp turned": encoded(PICTURE, "WEBP", lossless=True, exif=TURNED),
    "tiff": encoded(PICTURE, "TIFF"),
    "tiff turned": encoded(PICTURE, "TIFF", tiffinfo={0x0112: 6}),
    "tiff cmyk": encoded(PICTURE.convert("CMYK"), "TIFF"),
    "tiff 1-bit": encoded(PICTURE.convert("1"), "TIFF", compression="group4"),
    "tiff rgba": encoded(with_alpha(PICTURE), "TIFF"),
    "bmp": encoded(PICTURE, "BMP"),
}


def shown(data: bytes) -> np.ndarray:
    """What Pillow shows over white, BGR."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGBA")
    page = Image.new("RGB", image.size, "white")
    page.paste(image, mask=image.getchannel("A"))
    return np.asarray(page)[..., ::-1]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_what_a_viewer_shows(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "picture"
    path.write_bytes(KINDS[kind])
    image, expected = read_image(path), shown(KINDS[kind])
    assert image.shape == expected.shape and image.dtype == np.uint8 and image.flags.c_contiguous
    assert image.flags.writeable
    # Blending rounds up or down; so does the step from CMYK.
    assert np.abs(image.astype(int) - expected).max() <= (1 if "cmyk" in kind or "a" in kind else 0)
    assert image_size(str(path)) == image.shape[1::-1]
    assert (image.shape == (64, 48, 3)) == ("turned" in kind)


@pytest.mark.parametrize("extension", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bits_are_scaled_not_clipped(tmp_path: Path, extension: str, channels: int) -> None:
    deep = np.random.default_rng(1).integers(0, 65536, (48, 64, channels), dtype=np.uint16)
    if channels == 4:
        deep[..., 3] = 65535
    path = tmp_path / f"deep{extension}"
    path.write_bytes(cv2.imencode(extension, deep)[1].tobytes())
    expected = np.broadcast_to(deep[..., :3] / 257, (48, 64, 3))
    assert np.abs(read_image(path) - expected).max() <= 1
    assert image_size(str(path)) == (64, 48)


def test_a_photograph_is_read_as_opencv_reads_it(data_root: Path) -> None:
    for path in sorted((data_root / "coco_open_mini" / "images").iterdir())[:10]:
        assert np.array_equal(read_image(path), cv2.imread(str(path)))
        assert image_size(str(path)) == cv2.imread(str(path)).shape[1::-1]


@pytest.mark.parametrize("extension", [".jpg", ".png", ".bmp", ".webp"])
def test_data_after_the_end_do_no_harm(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"picture{extension}"
    data = cv2.imencode(extension, np.asarray(PICTURE))[1].tobytes()
    for each in (data, data + b"a trailer" * 20):
        path.write_bytes(each)
        assert np.array_equal(read_image(path), cv2.imread(str(path)))


# ---------------------------------------------------------------- faults


def noise(extension: str, height: int = 60) -> bytes:
    picture = np.random.default_rng(0).integers(0, 255, (height, 80, 3), dtype=np.uint8)
    return cv2.imencode(extension, picture)[1].tobytes()


def overwritten(data: bytes, length: int = 2000) -> bytes:
    """The data with random bytes in the middle."""
    middle = len(data) // 2
    other = np.random.default_rng(3).integers(0, 256, length, dtype=np.uint8).tobytes()
    return data[:middle] + other + data[middle + length :]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "cannot read image .*No such file"),
        (b"", r"is empty \(0 bytes\)"),
        (b"<html>404</html>", "is not an image"),
        (b"\xff\xd8\xff", "is truncated"),
        (noise(".jpg")[:-2], "is truncated"),
        (noise(".jpg", 400)[:20_000], "is truncated"),
        (noise(".jpg", 400)[:20_000] + bytes(20_000), "is truncated"),
        (noise(".png", 400)[:50_000], "is truncated|is not an image"),
        (noise(".bmp")[:9000], "is truncated|is not an image"),
        (noise(".webp", 400)[:9000], "is truncated|is not an image"),
        (overwritten(noise(".jpg", 400)), "is truncated or damaged"),
        (overwritten(encoded(PICTURE.resize((640, 480)), "JPEG", progressive=True), 1000), "or damaged"),
        (overwritten(noise(".png", 400)), "damaged"),
        (encoded(with_alpha(PICTURE), "PNG")[:2000], "or damaged"),
        (overwritten(encoded(with_alpha(PICTURE), "PNG"), 200), "or damaged"),
    ],
)  # fmt: skip
def test_unreadable_images_are_named(tmp_path: Path, data: Any, message: str) -> None:
    path = tmp_path / "picture.jpg"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(BadImageError, match=message) as raised:
        read_image(path)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)
    assert raised.value.path == str(path) and raised.value.reason


def test_a_file_without_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    (tmp_path / "a.jpg").write_bytes(KINDS["jpeg"])
    monkeypatch.setattr(Path, "read_bytes", refused)
    with pytest.raises(BadImageError, match="Permission denied") as raised:
        read_image(tmp_path / "a.jpg")
    assert raised.value.reason == "Permission denied"


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(BadImageError, match="not a file"):
        read_image(tmp_path / "a.jpg")


@pytest.mark.parametrize(
    ("data", "reason"), [(b"", "not an image"), (b"<html>", "not an image"), (None, "No such file")]
)
def test_a_header_that_is_none(tmp_path: Path, data: bytes | None, reason: str) -> None:
    if data is not None:
        (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(BadImageError) as raised:
        image_size(str(tmp_path / "a.jpg"))
    assert raised.value.reason.startswith(reason)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
@pytest.mark.parametrize("exif", [b"Exif\0\0II*\0\x08\0\0\0\x01", b"Exif\0\0no exif at all", b"Exif\0\0"])
def test_damaged_exif_turns_nothing(tmp_path: Path, kind: str, exif: bytes) -> None:
    path = tmp_path / f"a.{kind.lower()}"
    path.write_bytes(encoded(with_alpha(PICTURE), kind, lossless=True, exif=exif))
    assert image_size(str(path)) == PICTURE.size == read_image(path).shape[1::-1]


def test_the_error_survives_being_made_from_its_message_alone() -> None:
    """As torch makes it again in the main process, after a loader worker raised it."""
    again = BadImageError("Caught BadImageError\nssod.errors.BadImageError: image a.jpg is empty")
    assert again.one_line == "image a.jpg is empty"
