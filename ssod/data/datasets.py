"""Datasets in COCO's format: labeled images with boxes, unlabeled ones without any annotation.

Everything that is wrong with the files is found when the dataset is built, as a UserError.
"""

from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO
from itertools import compress
from os.path import join
from typing import Any

import cv2
from mmdet.datasets import BaseDetDataset, CocoDataset
from mmdet.datasets.api_wrappers import COCO

import ssod.data.transforms  # noqa: F401  registers the transforms that the pipelines name
from ssod.data.bad_images import too_narrow
from ssod.data.coco_file import (
    ANNOTATION_KEYS,
    IMAGE_KEYS,
    check_classes,
    check_folder,
    check_records,
    check_references,
    read_coco,
    shorten,
)
from ssod.data.split_manifest import hash_of_ids
from ssod.errors import UserError
from ssod.registry import DATASETS


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
        check_references(path, content)
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
