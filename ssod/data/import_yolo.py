"""YOLO folders (a text file with normalised boxes for each image) as a COCO file's content."""

from pathlib import Path
from typing import Any

import yaml

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

NAME_FILES = ("data.yaml", "data.yml", "dataset.yaml", "classes.txt", "obj.names")
ROUNDING = 0.5  # px that an edge may lie outside of the image: centres and sides are rounded separately


def read_yolo(folder: str | Path, subset: str | None = None, names: str | Path | None = None) -> Imported:
    """The images of a folder, with a label file or (background) without, in the order of their names.

    Layout: `images/` and `labels/`, or both kinds of files side by side. subset: of the images in
    `images/{subset}` and labels in `labels/{subset}`, or in `{subset}/images` and `{subset}/labels` ·
    names: the file with the class names, a `data.yaml` or a text with one a line; by default the one in
    `folder`. A box is `class x y width height`, the centre and sides in parts of the image as a viewer
    shows it. Edges up to half a pixel outside are rounding and cut.

    Raises UserError for missing class names or images, polygons, rotated boxes, keypoints, scores, and for
    numbers outside of 0 to 1.
    """
    folder = Path(folder)
    classes = read_names(_names_file(folder) if names is None else Path(names))
    image_folder, label_folder = _places(folder, subset)
    images = images_below(image_folder)
    if not images:
        raise UserError(f"{image_folder} holds no image: name a folder in YOLO's layout")
    labels = {
        path.relative_to(label_folder).with_suffix("").as_posix(): path
        for path in sorted(label_folder.rglob("*.txt"))
        if path.name not in NAME_FILES and (names is None or path.resolve() != Path(names).resolve())
    }
    lost = sorted(labels.keys() - images.keys())
    if lost:
        raise UserError(
            f"the image of {labels[lost[0]]} is missing: add it to {image_folder}, or remove the label"
        )
    bounding_box = box_reader()
    found = []
    for stem, path in images.items():
        image = ImportedImage(path.relative_to(folder).as_posix(), *viewer_size(path))
        if stem in labels:
            for number, line in enumerate(read_text(labels[stem]).splitlines(), 1):
                if line.strip():
                    where = f"line {number} of {labels[stem]}"
                    image.boxes.append(_box(bounding_box, line.split(), where, classes, image))
                    image.flags.append({})
        found.append(image)
    return Imported(found, classes)


def _names_file(folder: Path) -> Path:
    """The file with the class names in a folder or in its labels."""
    places = [folder, folder / "labels"]
    found = [place / name for place in places for name in NAME_FILES if (place / name).is_file()]
    if len(found) != 1:
        has = f"has {found[0].name} and {found[1].name}" if found else f"has none of {', '.join(NAME_FILES)}"
        raise UserError(
            f"the class names must stand in one file, but {folder} {has}: say with --names FILE which"
        )
    return found[0]


def read_names(path: Path) -> list[str]:
    """The class names of a `data.yaml` or of a text with one a line; UserError for anything else."""
    text = read_text(path)
    if path.suffix not in (".yaml", ".yml"):
        return check_names(str(path), [line for line in text.splitlines() if line.strip()])
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{path} is no YAML ({' '.join(str(error).split())}): mend it") from None
    content = content if isinstance(content, dict) else {}
    if "kpt_shape" in content:
        raise UserError(f"{path} is of keypoints (kpt_shape): only boxes can be imported")
    names: Any = content.get("names")
    if isinstance(names, dict):
        if sorted(names) != list(range(len(names))):
            raise UserError(f"{path} numbers its classes {sorted(names, key=str)}: they must be 0, 1, 2, ...")
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list):
        raise UserError(f"{path} has no list 'names': add the class names in the order of their numbers")
    strange = [name for name in names if isinstance(name, bool) or not isinstance(name, str | int)]
    if strange:  # YAML makes `no` false and `1.0` a number
        raise UserError(f"{path} has the class name {strange[0]!r}, which is no text: put it in quotes")
    if content.get("nc", len(names)) != len(names):
        raise UserError(f"{path} has nc={content['nc']}, but {len(names)} names: make them agree")
    return check_names(str(path), names)


def _places(folder: Path, subset: str | None) -> tuple[Path, Path]:
    """Where images and labels are."""
    if not folder.is_dir():
        raise UserError(f"folder {folder} does not exist: name a folder in YOLO's layout")
    if subset is None:
        return subfolder(folder, ["images"]), subfolder(folder, ["labels"])
    for images, labels in (
        (folder / "images" / subset, folder / "labels" / subset),
        (folder / subset / "images", folder / subset / "labels"),
    ):
        if images.is_dir() and labels.is_dir():
            return images, labels
    raise UserError(
        f"{folder} has no subset {subset}: neither images/{subset} and labels/{subset}, nor {subset}/images "
        f"and {subset}/labels"
    )


def _box(
    bounding_box: Any, words: list[str], where: str, classes: list[str], image: ImportedImage
) -> tuple[str, tuple[float, float, float, float]]:
    """The class and the box of a line."""
    if len(words) == 6:
        raise UserError(f"{where} has six numbers: a score, as in predictions; ground truth has five")
    if len(words) > 6:
        raise UserError(
            f"{where} has {len(words)} numbers: a polygon, a rotated box or keypoints; only upright boxes "
            "(five numbers) can be imported"
        )
    try:
        numbers = [float(word) for word in words[1:]]
    except ValueError:
        numbers = []
    if len(words) != 5 or len(numbers) != 4 or not all(0 <= each <= 1 for each in numbers):
        raise UserError(
            f"{where} must be 'class x y width height' with numbers from 0 to 1, not {' '.join(words)!r}"
        )
    if not words[0].isdecimal() or int(words[0]) >= len(classes):
        raise UserError(f"{where} has class {words[0]}: there are {len(classes)}, numbered from 0")
    box = bounding_box.from_yolo_darknet(" ".join(words), image_size=(image.width, image.height))
    outside = max(-box.xmin, -box.ymin, box.xmax - image.width, box.ymax - image.height)
    left, top = max(box.xmin, 0.0), max(box.ymin, 0.0)
    right, bottom = min(box.xmax, image.width), min(box.ymax, image.height)
    if outside > ROUNDING or right <= left or bottom <= top:
        raise UserError(
            f"{where} has a box that is empty or leaves the image by {max(outside, 0):.1f} px: "
            f"{' '.join(words)!r} of {image.width} x {image.height}"
        )
    return classes[int(words[0])], (left, top, right - left, bottom - top)
