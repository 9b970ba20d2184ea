"""What importers share: images with boxes, the COCO file they become, and globox, which reads the boxes.

globox (MIT, `pip install -e ".[import]"`) parses one object at a time; what it doesn't look at, and would
drop without a word, is checked around it.
"""

import importlib
import json
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssod.data.decode import image_size
from ssod.errors import BadImageError, UserError

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class ImportedImage:
    """An image with its boxes.

    file_name: relative to the imported folder · width, height: in pixels, as a viewer shows it · boxes: for
    each the class and `(x, y, width, height)` in pixels · flags: for each box what else COCO's records take.
    """

    file_name: str
    width: int
    height: int
    boxes: list[tuple[str, tuple[float, float, float, float]]] = field(default_factory=list)
    flags: list[dict[str, int]] = field(default_factory=list)


@dataclass(frozen=True)
class Imported:
    """A data set; notes: what was left out, one sentence each."""

    images: list[ImportedImage]
    classes: list[str]
    notes: list[str] = field(default_factory=list)


def box_reader() -> Any:
    """globox's BoundingBox; UserError where the library is missing."""
    try:
        return importlib.import_module("globox").BoundingBox
    except ImportError:
        raise UserError('importing needs globox: run pip install -e ".[import]"') from None


def subfolder(folder: Path, names: Iterable[str]) -> Path:
    """The first of the folders that is there, else the folder itself."""
    return next((folder / name for name in names if (folder / name).is_dir()), folder)


def images_below(folder: Path) -> dict[str, Path]:
    """The images of a folder by their path without suffix, those of hidden folders left out.

    Raises UserError where two differ in the suffix only.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        below = path.relative_to(folder)
        if path.suffix.lower() not in SUFFIXES or any(part.startswith(".") for part in below.parts):
            continue
        stem = below.with_suffix("").as_posix()
        if stem in found:
            raise UserError(f"images {found[stem]} and {path} have one name: labels can't tell them apart")
        found[stem] = path
    return found


def viewer_size(path: Path) -> tuple[int, int]:
    """Width and height as a viewer shows the image, EXIF orientation applied; from its header alone."""
    try:
        return image_size(str(path))
    except BadImageError as error:
        raise UserError(
            f"image {path} can't be read ({error.reason}): repair or remove it with its label"
        ) from None


def read_text(path: Path) -> str:
    """A text file's content; UserError if it can't be read."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} can't be read ({error}): check the path, and that it is UTF-8") from None


def check_names(source: str, names: Sequence[Any]) -> list[str]:
    """The class names; UserError unless they are different, non-empty words."""
    words = [str(name).strip() for name in names]
    if not words or not all(words) or len(set(words)) != len(words):
        raise UserError(f"{source} must name each class once, and at least one: it has {words}")
    return words


def write_imported(data: Imported, out: Path) -> None:
    """Writes a COCO file, whole or not at all; UserError where `out` holds something else."""
    number_of = {name: number for number, name in enumerate(data.classes, 1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, image in enumerate(data.images, 1):
        images.append(dict(id=number, file_name=image.file_name, width=image.width, height=image.height))
        for (name, box), flags in zip(image.boxes, image.flags, strict=True):
            x, y, width, height = (round(each, 4) for each in box)
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=number,
                    category_id=number_of[name],
                    bbox=[x, y, width, height],
                    area=round(width * height, 4),
                    iscrowd=0,
                    **flags,
                )
            )
    categories = [dict(id=number, name=name) for name, number in number_of.items()]
    content = dict(images=images, annotations=annotations, categories=categories)
    text = json.dumps(content) + "\n"
    partial = out.with_name(f".{out.name}.partial")
    try:
        if out.exists() and out.read_bytes() != text.encode():
            raise UserError(f"{out} exists and holds something else: remove it, or give another --out")
        out.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, out)
    except OSError as error:
        with suppress(OSError):  # a file where the folder should be
            partial.unlink()
        raise UserError(f"cannot write {out} ({error.strerror}): check --out and the disk") from None
