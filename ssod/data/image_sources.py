"""Which images a source names: a folder, a glob, a list, a COCO file, an image, or several."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path
from typing import Any

from ssod.data.coco_file import check_records, read_coco
from ssod.errors import UserError

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
Source = str | Path
KINDS = "a folder, a .txt list, a COCO .json file or a glob such as 'photos/**/*.jpg', or one image"


@dataclass(frozen=True)
class Listing:
    """Images in the order of their names: names below `folder` · ids, those of a COCO file or 1, 2, ... ·
    the categories of the COCO file they come from, if it has any."""

    folder: str
    names: tuple[str, ...]
    ids: tuple[Any, ...]
    categories: tuple[dict[str, Any], ...] = ()

    def paths(self) -> list[str]:
        """Where the images lie."""
        return [os.path.join(self.folder, name) for name in self.names]


def list_images(source: Source | Sequence[Source], root: Source | None = None) -> Listing:
    """The images of a source, or of several one after the other.

    Relative names of lists and COCO files begin at `root`, by default the folder that the file lies in.
    Several sources are numbered together, from 1. Raises UserError for a source that is missing, empty or of
    another kind.
    """
    if isinstance(source, (str, Path)):
        return _list_one(str(source), None if root is None else str(root))
    parts = [_list_one(str(each), None if root is None else str(root)) for each in source]
    if not parts:
        raise UserError(f"the list of image sources is empty: give {KINDS}")
    if len(parts) == 1:
        return parts[0]
    folders = [os.path.abspath(part.folder) for part in parts]
    common = os.path.commonpath(folders)
    names: list[str] = []
    for part, folder in zip(parts, folders, strict=True):
        below = os.path.relpath(folder, common)
        names += part.names if below == "." else [os.path.join(below, name) for name in part.names]
    return Listing(common, tuple(names), tuple(range(1, len(names) + 1)))


def _list_one(source: str, root: str | None) -> Listing:
    path = Path(source)
    if path.is_dir():
        return _numbered(source, files_below(source))
    if not path.exists():
        if has_magic(source):
            return _glob(source)
        raise UserError(f"images {source} do not exist: give {KINDS}")
    folder = str(path.parent) if root is None else root
    if path.suffix == ".txt":
        return _numbered(folder, _lines(path))
    if path.suffix == ".json":
        return _coco(source, folder)
    if path.suffix.lower() in SUFFIXES:
        return _numbered(str(path.parent), [path.name])
    raise UserError(f"images {source}: give {KINDS}")


def _numbered(folder: str, names: Sequence[str]) -> Listing:
    """The images in the order of their names, with ids from 1."""
    return Listing(folder, tuple(sorted(names)), tuple(range(1, len(names) + 1)))


def files_below(folder: str) -> list[str]:
    """The names of a folder's images, relative to it, in no order; hidden files and folders are left out.

    Links to folders are followed, each folder once. Raises UserError for a folder that can't be read, or
    without an image.
    """
    names: list[str] = []
    waiting, seen = [""], set()
    while waiting:
        below = waiting.pop()
        try:
            status = os.stat(os.path.join(folder, below))
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(os.path.join(folder, below)) as entries:
                for entry in entries:
                    name = entry.name
                    if name.startswith("."):
                        continue
                    if _is_folder(entry):
                        waiting.append(f"{below}{name}/")
                    elif name.lower().endswith(SUFFIXES):
                        names.append(below + name)
        except OSError as error:
            raise UserError(
                f"image folder {os.path.join(folder, below)} can't be read ({error.strerror}): mend its "
                "permissions, or name another one"
            ) from None
    if not names:
        raise UserError(f"folder {folder} holds no image ({', '.join(SUFFIXES)}): name another one")
    return names


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads in a circle: whoever opens it will say so
        return False


def _glob(pattern: str) -> Listing:
    """The images that a pattern matches; `**` stands for any number of folders."""
    parts = Path(pattern).parts
    fixed = Path(*parts[: next(i for i, part in enumerate(parts) if has_magic(part))])
    found = [each for each in glob(pattern, recursive=True) if each.lower().endswith(SUFFIXES)]
    if not found:
        raise UserError(f"no image ({', '.join(SUFFIXES)}) matches {pattern}: check the pattern")
    return _numbered(str(fixed), [os.path.relpath(each, fixed) for each in found])


def _lines(path: Path) -> list[str]:
    """The names in a list; empty lines don't count."""
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"list {path} can't be read ({error}): write one path a line, in UTF-8") from None
    names = [name for name in names if name]
    if not names:
        raise UserError(f"list {path} names no image: write one path a line")
    return names


def _coco(source: str, folder: str) -> Listing:
    """The images of a COCO file, its annotations unread."""
    content = read_coco(source, ("images",))
    records = content["images"]
    check_records(source, "images", records, ("id", "file_name"))
    if not records:
        raise UserError(f"COCO file {source} has no images: name another one")
    ordered = sorted(records, key=lambda record: str(record["file_name"]))
    categories = tuple(each for each in content.get("categories") or () if isinstance(each, dict))
    names = tuple(str(record["file_name"]) for record in ordered)
    return Listing(folder, names, tuple(record["id"] for record in ordered), categories)
