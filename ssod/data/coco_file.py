"""An annotation file in COCO's format: its content, or in one sentence what is wrong with it."""

import json
import os
from collections.abc import Mapping, Sequence
from os.path import isdir
from pathlib import Path
from typing import Any

from ssod.errors import UserError

IMAGE_KEYS = ("id", "file_name", "width", "height")
ANNOTATION_KEYS = ("id", "image_id", "category_id", "bbox", "area")
_ID, _NUMBER = (int, float, str), (int, float)
# What the keys of records hold: {key: (types of json, what a message asks for)}.
_KINDS = {
    **dict.fromkeys(("id", "image_id", "category_id"), (_ID, "a number or a text")),
    **dict.fromkeys(("file_name", "name"), ((str,), "a text, in quotes,")),
    **dict.fromkeys(("width", "height", "area"), (_NUMBER, "a number")),
    "bbox": ((list,), "[x, y, width, height] in numbers"),
}
SHOWN = 8  # names or ids in an error message
SHOWN_TEXT = 60  # letters of a value in one
CLASSES_OF = "classes = (...) of the config, or metainfo=dict(classes=(...)) of its datasets,"
SPLIT = "write it with tools/split_data.py, as docs/datasets.md says"


def read_coco(path: str, sections: Sequence[str]) -> dict[str, Any]:
    """The content of a COCO file, with the given sections present, each a list of records.

    Raises UserError for a file that is missing, unreadable, no JSON or not in COCO's format.
    """
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except OSError as error:
        absent = isinstance(error, FileNotFoundError) and "semi_anns" in Path(path).parts
        mend = SPLIT if absent else "check data_root and ann_file in the dataset's config"
        raise UserError(
            f"cannot read annotation file {path} ({error.strerror}): {mend}{_data_root_of(path)}"
        ) from None
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"annotation file {path} is not valid JSON ({reason}): write or download it again"
        ) from None
    for section in sections:
        if not isinstance(content, dict) or not isinstance(content.get(section), list):
            raise UserError(
                f"annotation file {path} has no list '{section}': a COCO file with "
                f"{', '.join(sections)} is needed"
            )
    return dict(content)


def _data_root_of(path: str) -> str:
    """`; SSOD_DATA_ROOT is ...` for a path that the shipped configs find by that variable, or by its lack."""
    root = os.environ.get("SSOD_DATA_ROOT")
    if root and Path(path).is_relative_to(root):
        return f"; SSOD_DATA_ROOT is {root}"
    if root is None and Path(path).is_relative_to("data"):
        return f"; SSOD_DATA_ROOT is not set, so that it is looked for below {os.path.abspath('data')}"
    return ""


def check_records(path: str, section: str, records: Sequence[Any], keys: Sequence[str]) -> None:
    """Raises UserError for a record without one of the keys or with a value of another kind, and for ids that
    are not unique."""
    index = _first_incomplete(records, keys)
    if index is not None:
        record = records[index]
        missing = [key for key in keys if not isinstance(record, dict) or record.get(key) is None]
        raise UserError(
            f"record {index} of '{section}' in {path} has no {', '.join(missing)}: "
            f"every record needs {', '.join(keys)}"
        )
    check_kinds(path, section, records, keys)
    check_unique(path, section, [record["id"] for record in records])


def check_unique(path: str | Path, section: str, ids: Sequence[Any]) -> None:
    """Raises UserError unless all ids are numbers or all strings, and none is there twice."""
    different = set(ids)
    if len({isinstance(each, str) for each in different}) > 1:
        raise UserError(f"ids in '{section}' of {path} are numbers and strings: use one kind")
    if len(different) != len(ids):
        raise UserError(f"ids in '{section}' of {path} are not unique: number the records again")


def _first_incomplete(records: Sequence[Any], keys: Sequence[str]) -> int | None:
    """The place of the first record without one of the keys; key by key, for a file may have a million."""
    if not all(isinstance(record, dict) for record in records):
        return next(index for index, record in enumerate(records) if not isinstance(record, dict))
    places = (
        next((index for index, record in enumerate(records) if record.get(key) is None), None) for key in keys
    )
    return min((place for place in places if place is not None), default=None)


def check_kinds(path: str, section: str, records: Sequence[Any], keys: Sequence[str]) -> None:
    """Raises UserError for a value that is not what its key holds, such as a width in quotes; null passes."""
    for key in (key for key in keys if key in _KINDS):
        if _hold(key, [record.get(key) for record in records if isinstance(record, dict)]):
            continue
        index, value = next(
            (index, record[key])
            for index, record in enumerate(records)
            if isinstance(record, dict) and not _hold(key, [record.get(key)])
        )
        raise UserError(
            f"record {index} of '{section}' in {path} has the {key} {str(value)[:SHOWN_TEXT]!r}: "
            f"{_KINDS[key][1]} is needed"
        )


def _hold(key: str, values: Sequence[Any]) -> bool:
    """Whether all values are what the key holds."""
    given = [value for value in values if value is not None]
    if not {type(value) for value in given} <= {*_KINDS[key][0]}:
        return False
    if key != "bbox":
        return True
    return {len(box) for box in given} <= {4} and {type(side) for box in given for side in box} <= {*_NUMBER}


def check_folder(prefix: str, ann_file: str) -> None:
    """Raises UserError when the folder with the images is missing."""
    if prefix and "://" not in prefix and not isdir(prefix):
        raise UserError(
            f"image folder {prefix} of {ann_file} does not exist: check data_root and "
            f"data_prefix=dict(img=...) in the dataset's config{_data_root_of(prefix)}"
        )


def check_classes(path: str, classes: Sequence[str], categories: Sequence[Mapping[str, Any]]) -> None:
    """Raises UserError unless the classes are categories of the file, in the file's order.

    mmdet and its CocoMetric number labels in the file's order over the classes they find there, so
    a missing class or another order gives boxes wrong names without a word.
    """
    check_records(path, "categories", categories, ("id", "name"))
    names = [category["name"] for category in categories]
    known = [name for name in names if name in set(classes)]
    if isinstance(classes, str) or not known:
        raise UserError(
            f"classes {shorten(classes)} match none of the categories {shorten(names)} in {path}: "
            f"set {CLASSES_OF} to the names in the file"
        )
    missing = [name for name in classes if name not in set(names)]
    if missing:
        raise UserError(
            f"classes {shorten(missing)} are not among the categories {shorten(names)} in {path}: "
            "remove them from classes, or add the categories to the file"
        )
    if list(classes) != known:
        raise UserError(
            f"classes {shorten(classes)} are in another order than the categories in {path}: "
            f"labels follow the file's order, so write classes={shorten(known)}"
        )


def shorten(names: Sequence[Any]) -> str:
    """The names as text, only the first few where there are many."""
    if isinstance(names, str):
        return f"{names!r} (a string, not a tuple)"
    more = f", ... {len(names)} in all" if len(names) > SHOWN else ""
    return f"({', '.join(repr(name) for name in list(names)[:SHOWN])}{more})"


def check_references(path: str, content: Mapping[str, Any]) -> None:
    """Raises UserError where ids are numbers in one place and texts in another: no box would be found."""
    for key, section in (("image_id", "images"), ("category_id", "categories")):
        texts = {isinstance(record["id"], str) for record in content[section]}
        for index, record in enumerate(content["annotations"]):
            if texts and isinstance(record[key], str) not in texts:
                raise UserError(
                    f"record {index} of 'annotations' in {path} has the {key} {record[key]!r}, and ids in "
                    f"'{section}' are {'texts' if True in texts else 'numbers'}: use one kind"
                )
