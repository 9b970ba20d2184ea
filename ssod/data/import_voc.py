"""Pascal VOC folders (an XML file for each image) as a COCO file's content."""

import math
import xml.etree.ElementTree as ElementTree
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssod.data.import_common import (
    Imported,
    ImportedImage,
    box_reader,
    check_names,
    images_below,
    read_text,
    subfolder,
    viewer_size,
)
from ssod.errors import UserError

FLAGS = ("difficult", "truncated")  # kept as keys of the annotation; nothing of ours reads them


def read_voc(
    folder: str | Path,
    subset: str | None = None,
    classes: Sequence[str] | None = None,
    zero_based: bool = False,
) -> Imported:
    """The images with an XML file, in the order of the files' names.

    Layout: `Annotations/*.xml` and `JPEGImages/`, or both kinds of files in `folder` itself. subset: only
    those named in `ImageSets/Main/{subset}.txt` · classes: the names, in the order that they shall have;
    by default those in the files, sorted · zero_based: corners count from 0 and the right and lower ones
    lie behind the box; VOC's own count from 1 and lie inside, so a box is `xmax - xmin + 1` wide.

    `difficult` and `truncated` become keys of the same names. Body parts (`part`) have no place in COCO; they
    are counted in the notes, as are images without a file. Raises UserError for missing images, sizes that
    are not the image's, boxes that leave it, rotated boxes or polygons without a box, flags other than 0 and
    1, and unknown classes.
    """
    folder = Path(folder)
    reader = _VocReader(folder, zero_based)
    names = _listed(folder, subset)
    places = subfolder(folder, ("Annotations", "annotations"))
    files = sorted(places.glob("*.xml")) if names is None else [places / f"{name}.xml" for name in names]
    if not files:
        raise UserError(f"{places} holds no .xml file: name a folder in Pascal VOC's layout")
    images = [reader.read(path) for path in files]
    twice = _first_twice([image.file_name for image in images])
    if twice is not None:
        raise UserError(f"two .xml files in {places} are of image {twice}: keep one, or mend its <filename>")
    found = {name for image in images for name, _ in image.boxes}
    known = check_names("--classes", classes) if classes else sorted(found)
    strange = sorted(found - set(known))
    if strange:
        raise UserError(f"class {strange[0]!r} in {places} is not among --classes {' '.join(known)}: add it")
    if not known:
        raise UserError(f"no .xml file in {places} has a box: say with --classes which classes there are")
    return Imported(images, known, reader.notes(len(files) if names is None else None))


def _first_twice(names: list[str]) -> str | None:
    return next((name for name, number in Counter(names).items() if number > 1), None)


def _listed(folder: Path, subset: str | None) -> list[str] | None:
    """The names in a list of VOC's; None if there is no subset to take."""
    if subset is None:
        return None
    path = folder / "ImageSets" / "Main" / f"{subset}.txt"
    lines = [line.split() for line in read_text(path).splitlines() if line.strip()]
    if not lines or any(len(words) != 1 for words in lines):
        raise UserError(
            f"list {path} must have one image name a line (lists with a second column are of one class)"
        )
    names = [words[0] for words in lines]
    twice = _first_twice(names)
    if twice is not None:
        raise UserError(f"list {path} names {twice} twice: list every image once")
    return names


class _VocReader:
    """Reads XML files; counts what has no place in COCO."""

    def __init__(self, folder: Path, zero_based: bool) -> None:
        self.folder = folder
        self.first = 0 if zero_based else 1  # the number of the first pixel
        self.images = images_below(subfolder(folder, ("JPEGImages", "images")))
        self.by_name: dict[str, list[Path]] = defaultdict(list)
        for image in self.images.values():
            self.by_name[image.name].append(image)
        self.bounding_box = box_reader()
        self.num_parts = 0

    def read(self, path: Path) -> ImportedImage:
        """The image of an XML file."""
        try:
            root = ElementTree.parse(path).getroot()
        except (OSError, ElementTree.ParseError, ValueError, LookupError) as error:
            raise UserError(f"{path} can't be read as XML ({error}): write it again") from None
        if root.tag != "annotation":
            raise UserError(f"{path} is not Pascal VOC's: it begins with <{root.tag}>, not <annotation>")
        named = Path((root.findtext("filename") or "").strip()).name
        of_name = self.by_name.get(named, [])
        if len(of_name) > 1:
            raise UserError(
                f"{path} is of image {named}, and there are {of_name[0]} and {of_name[1]}: give each image a "
                "name of its own"
            )
        found = of_name[0] if of_name else self.images.get(path.stem)
        if found is None:
            raise UserError(
                f"the image of {path} ({named or path.stem}) is missing: add it, or remove the label"
            )
        width, height = viewer_size(found)
        said = [root.findtext(f"size/{side}") for side in ("width", "height")]
        if said != [None, None] and [_number(each) for each in said] != [width, height]:
            raise UserError(
                f"{path} says that its image is {said[0]} x {said[1]} px, but {found} is {width} x {height}: "
                "the boxes belong to another version of the image"
            )
        image = ImportedImage(found.relative_to(self.folder).as_posix(), width, height)
        for number, node in enumerate(root.findall("object"), 1):
            image.boxes.append(self._box(node, f"object {number} of {path}", width, height))
            image.flags.append(_flags(node, f"object {number} of {path}"))
            self.num_parts += len(node.findall("part"))
        return image

    def notes(self, num_read: int | None) -> list[str]:
        """What was left out; `num_read`, files of the whole folder, tells of images without one."""
        notes = [f"{self.num_parts} body parts (<part>) were left out"] if self.num_parts else []
        if num_read is not None and num_read < len(self.images):
            notes.append(f"{len(self.images) - num_read} images without an .xml file were left out")
        return notes

    def _box(
        self, node: Any, where: str, width: int, height: int
    ) -> tuple[str, tuple[float, float, float, float]]:
        """The class and the box of an object."""
        if node.find("bndbox") is None:
            kinds = [kind for kind in ("polygon", "robndbox", "point") if node.find(kind) is not None]
            has = f"only a <{kinds[0]}>" if kinds else "none"
            raise UserError(f"{where} needs a <bndbox> and has {has}: only upright boxes can be imported")
        try:
            box = self.bounding_box.from_xml(node)
        except Exception as error:  # ParsingError, ValueError, AssertionError: the library has no common one
            reason = " ".join(str(error).split())
            raise UserError(f"{where} has no name or no box of four numbers in order ({reason})") from None
        name = box.label.strip()
        corners = (box.xmin, box.ymin, box.xmax, box.ymax)
        last = (width - 1 + self.first, height - 1 + self.first) if self.first else (width, height)
        inside = (
            self.first <= box.xmin and box.xmax <= last[0] and self.first <= box.ymin and box.ymax <= last[1]
        )
        sides = (box.xmax - box.xmin + self.first, box.ymax - box.ymin + self.first)
        if not all(map(math.isfinite, corners)) or not inside or min(sides) <= 0 or not name:
            hint = "; for corners that count from 0 say --zero-based" if self.first else ""
            raise UserError(
                f"{where} ({name!r}) has the box {corners}, which is empty or leaves its {width} x {height} "
                f"image with corners from {self.first} to {last}{hint}"
            )
        return name, (box.xmin - self.first, box.ymin - self.first, *sides)


def _number(text: str | None) -> float | None:
    """The number in a text, None if there is none."""
    try:
        return float(text or "")
    except ValueError:
        return None


def _flags(node: Any, where: str) -> dict[str, int]:
    """The flags that an object has."""
    flags = {}
    for name in FLAGS:
        said = (node.findtext(name) or "").strip()
        if said not in ("", "0", "1"):
            raise UserError(f"{where} has <{name}> {said!r}: 0 or 1 is needed")
        if said:
            flags[name] = int(said)
    return flags
