"""Unlabeled images as people have them: a folder, a list of paths or a COCO file, in one fixed order."""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from ssod.data.datasets import check_records, read_coco
from ssod.errors import UserError

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class ImageFile:
    """One image: its id, unique in its set · its name as the source has it · where it lies."""

    id: Any
    file_name: str
    path: str


@dataclass(frozen=True)
class ImageSet:
    """Images sorted by name, and the categories of the COCO file they come from, if it has any."""

    images: tuple[ImageFile, ...]
    categories: tuple[dict[str, Any], ...] = ()


def read_images(source: str | Path, root: str | Path | None = None) -> ImageSet:
    """The images of a folder (with all folders below), of a list (`.txt`) or of a COCO file (`.json`).

    A list has one path a line. Relative names begin at `root`, by default the folder of the list or the COCO
    file. Images of a folder or a list are numbered from 1 in the order of their names; a COCO file's keep
    their ids. Annotations are not read. Raises UserError for a source that is missing, empty, of another
    kind, or names an image twice.
    """
    source = Path(source)
    if source.is_dir():
        if root is not None:
            raise UserError(f"an image root ({root}) is for lists and COCO files; {source} is a folder")
        return ImageSet(_numbered(_files_below(source), source, source))
    if not source.exists():
        raise UserError(f"images {source} do not exist: give a folder, a .txt list or a COCO .json file")
    folder = source.parent if root is None else Path(root)
    if source.suffix == ".txt":
        return ImageSet(_numbered(_lines(source), source, folder))
    if source.suffix == ".json":
        return _coco_images(source, folder)
    raise UserError(f"images {source}: give a folder, a .txt list or a COCO .json file")


def _files_below(folder: Path) -> list[str]:
    """The names of a folder's images, relative to it; hidden files and folders are left out."""
    names = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        names += [
            Path(place, name).relative_to(folder).as_posix()
            for name in files
            if name.lower().endswith(SUFFIXES) and not name.startswith(".")
        ]
    if not names:
        raise UserError(f"folder {folder} holds no image ({', '.join(SUFFIXES)}): name another one")
    return names


def _lines(path: Path) -> list[str]:
    """The names in a list; empty lines don't count."""
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"list {path} can't be read ({error}): write one path a line, in UTF-8") from None
    names = [name for name in names if name]
    if not names:
        raise UserError(f"list {path} names no image: write one path a line")
    return names


def _numbered(names: Iterable[str], source: Path, folder: Path) -> tuple[ImageFile, ...]:
    """The images in the order of their names, with ids from 1."""
    ordered = _unique(sorted(names), source)
    return tuple(ImageFile(i, name, str(folder / name)) for i, name in enumerate(ordered, 1))


def _unique(names: list[str], source: Path) -> list[str]:
    """The sorted names; UserError where one comes twice."""
    twice = next((one for one, other in pairwise(names) if one == other), None)
    if twice is not None:
        raise UserError(f"{source} names image {twice} twice: list every image once")
    return names


def _coco_images(source: Path, folder: Path) -> ImageSet:
    """The images of a COCO file, its annotations unread."""
    content = read_coco(str(source), ("images",))
    records = content["images"]
    check_records(str(source), "images", records, ("id", "file_name"))
    if not records:
        raise UserError(f"COCO file {source} has no images: name another one")
    images = [ImageFile(one["id"], one["file_name"], str(folder / one["file_name"])) for one in records]
    images.sort(key=lambda image: image.file_name)
    _unique([image.file_name for image in images], source)
    if not Path(images[0].path).is_file():
        raise UserError(
            f"image {images[0].path} of COCO file {source} does not exist: say with --image-root where its "
            "file names begin"
        )
    categories = content.get("categories") or ()
    return ImageSet(tuple(images), tuple(each for each in categories if isinstance(each, dict)))


def images_of(dataset: Any) -> ImageSet:
    """The images of a dataset of ours or mmdet's, sorted by name; its annotations stay unread."""
    prefix = (getattr(dataset, "data_prefix", None) or {}).get("img", "")
    images = []
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        path = info["img_path"]
        name = Path(os.path.relpath(path, prefix)).as_posix() if prefix else Path(path).name
        images.append(ImageFile(info["img_id"], name, path))
    return ImageSet(tuple(sorted(images, key=lambda image: image.file_name)))


def split_hash(images: Iterable[ImageFile]) -> str:
    """The SHA-256 of the sorted ids and names, one image a line: equal hashes mean the same images."""
    lines = sorted(f"{image.id}\t{image.file_name}" for image in images)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
