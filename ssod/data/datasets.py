"""Datasets in COCO's format: labeled images with boxes, unlabeled ones without any annotation.

Everything that is wrong with the files is found when the dataset is built, as a UserError.
"""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO
from itertools import compress
from os.path import isdir, join
from pathlib import Path
from typing import Any

import cv2
from mmdet.datasets import BaseDetDataset, CocoDataset
from mmdet.datasets.api_wrappers import COCO

import ssod.data.transforms  # noqa: F401  registers the transforms that the pipelines name
from ssod.data.bad_images import too_narrow
from ssod.data.split_manifest import hash_of_ids
from ssod.errors import UserError
from ssod.registry import DATASETS

IMAGE_KEYS = ("id", "file_name", "width", "height")
ANNOTATION_KEYS = ("id", "image_id", "category_id", "bbox", "area")
SHOWN = 8  # names or ids in an error message
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
    """Raises UserError for a record without one of the keys, or for ids that are not unique."""
    for index, record in enumerate(records):
        missing = [key for key in keys if not isinstance(record, dict) or record.get(key) is None]
        if missing:
            raise UserError(
                f"record {index} of '{section}' in {path} has no {', '.join(missing)}: "
                f"every record needs {', '.join(keys)}"
            )
    if len({record["id"] for record in records}) != len(records):
        raise UserError(f"ids in '{section}' of {path} are not unique: number the records again")


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
    names = [str(category.get("name")) for category in categories]
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


class PartOfFile:
    """A dataset that can take a part of its file: `only_ids`, or all but `except_ids`; not both.

    part_sha256: the hash of the ids of that part, whatever `filter_cfg` drops of it later.
    """

    ann_file: str
    part_sha256: str

    def __init__(
        self,
        *args: Any,
        only_ids: Sequence[int] | None = None,
        except_ids: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        self.only_ids = only_ids
        self.except_ids = except_ids
        super().__init__(*args, **kwargs)

    def part_of(self, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The records whose `img_id` belongs to the part; order stays. Raises what `kept` raises."""
        part = list(compress(records, self.kept([record["img_id"] for record in records])))
        self.part_sha256 = hash_of_ids(record["img_id"] for record in part)
        return part

    def kept(self, ids: Sequence[Any]) -> list[bool]:
        """For each id of the file whether it belongs to the part.

        Raises UserError when both lists are given, or an id is twice in the list or not in the file.
        """
        path = self.ann_file
        if self.only_ids is None and self.except_ids is None:
            return [True] * len(ids)
        if self.only_ids is not None and self.except_ids is not None:
            raise UserError(f"only_ids and except_ids are both given for {path}: choose one of them")
        only = self.only_ids is not None
        name, listed = ("only_ids", self.only_ids) if only else ("except_ids", self.except_ids)
        wanted = set(listed or ())
        if len(wanted) != len(listed or ()):
            raise UserError(f"{name} for {path} has an id twice: list every image once")
        missing = sorted(wanted - set(ids))
        if missing:
            raise UserError(
                f"{name} has ids {shorten(missing)} that are no images of {path}: "
                "check the list, or the ann_file that it was made for"
            )
        return [(each in wanted) == only for each in ids]


@DATASETS.register_module()
class LabeledCoco(PartOfFile, CocoDataset):  # type: ignore[misc]
    """mmdet's CocoDataset that refuses faulty files when it is built; good for validation, too.

    Args are those of `CocoDataset`: `ann_file`, `data_root`, `data_prefix=dict(img=...)`,
    `metainfo=dict(classes=...)`, `filter_cfg`, `pipeline`, `test_mode`, `indices`, ...
    `filter_cfg=None` keeps images without boxes as negatives; mmdet's semi-supervised COCO recipe
    is `dict(filter_empty_gt=True, min_size=32)`. `only_ids` or `except_ids` takes a part of the
    file: the images with these ids, or all others.
    """

    def load_data_list(self) -> list[dict[str, Any]]:
        """The records of the file, or of the part of it that is asked for."""
        return self.part_of(super().load_data_list())

    def COCOAPI(self, path: str) -> COCO:  # noqa: N802  mmdet's hook, a class attribute there
        """The index of a checked annotation file; pycocotools' own loader prints to the console."""
        content = read_coco(path, ("images", "annotations", "categories"))
        check_folder(self.data_prefix["img"], path)
        check_classes(path, self.metainfo["classes"], content["categories"])
        check_records(path, "images", content["images"], IMAGE_KEYS)
        check_records(path, "annotations", content["annotations"], ANNOTATION_KEYS)
        return _index(content)

    def filter_data(self) -> list[dict[str, Any]]:
        """The records that pass `filter_cfg`; raises UserError when none does."""
        kept: list[dict[str, Any]] = super().filter_data()
        if not kept:
            raise UserError(
                f"no labeled image is left of {len(self.data_list)} in {self.ann_file} after "
                f"filter_cfg={self.filter_cfg}: there is no image with a box of "
                f"{shorten(self.metainfo['classes'])}, or all are smaller than min_size"
            )
        return kept

    def prepare_data(self, idx: int) -> Any:
        """mmdet's; in test mode BadImageError for an image that its scale leaves without a side."""
        try:
            return super().prepare_data(idx)
        except cv2.error as error:
            if not self.test_mode:
                raise  # training draws another image in its place
            raise too_narrow(error, self.get_data_info(idx)["img_path"]) from None


def _index(content: Mapping[str, Any]) -> COCO:
    """mmdet's COCO object over records that were read already."""
    coco = COCO()
    coco.dataset = content
    with redirect_stdout(StringIO()):  # "creating index..."
        coco.createIndex()
    # mmdet's constructor aliases them before there is an index.
    coco.img_ann_map, coco.cat_img_map = coco.imgToAnns, coco.catToImgs
    return coco


@DATASETS.register_module()
class UnlabeledCoco(PartOfFile, BaseDetDataset):  # type: ignore[misc]
    """The images of a COCO file; its annotations, if it has any, are dropped unread.

    A record is `img_path, img_id, height, width, sample_idx` and nothing else. `metainfo` takes the
    labeled dataset's classes, so that both go into one ConcatDataset. A `filter_cfg` of
    `dict(min_size=32)` drops small images. `only_ids` or `except_ids` takes a part of the file:
    the images with these ids, or all others.
    """

    METAINFO = CocoDataset.METAINFO

    def load_data_list(self) -> list[dict[str, Any]]:
        """One record for each image, in file order."""
        images = read_coco(self.ann_file, ("images",))["images"]
        check_records(self.ann_file, "images", images, IMAGE_KEYS)
        folder = self.data_prefix["img"]
        check_folder(folder, self.ann_file)
        records = [
            dict(
                img_path=join(folder, image["file_name"]),
                img_id=image["id"],
                height=image["height"],
                width=image["width"],
            )
            for image in images
        ]
        return self.part_of(records)

    def filter_data(self) -> list[dict[str, Any]]:
        """The records whose smaller side is at least `min_size`; raises UserError if none is."""
        min_size = (self.filter_cfg or {}).get("min_size", 0)
        kept = [one for one in self.data_list if min(one["width"], one["height"]) >= min_size]
        if not kept:
            raise UserError(
                f"no unlabeled image is left of {len(self.data_list)} in {self.ann_file} after "
                f"filter_cfg={self.filter_cfg}: name a file with images, or relax the filter"
            )
        return kept
