"""The hidden truth: annotations of images that training takes for unlabeled, for measurements alone.

Nothing here is a pipeline's or a sampler's dataset, and nothing that trains imports it: what it holds goes
into figures and pictures, never into a batch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from os.path import isfile
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from ssod.core.geometry import project_boxes
from ssod.data.coco_file import check_records, read_coco, shorten
from ssod.errors import UserError

TOO_FAR = 1e9  # px; no image has such a place
MIN_SIDE = 1e-2  # px; a projected box that is thinner has left the view, as in BoxLabels


def _is_id(value: Any) -> bool:
    return isinstance(value, (int, float, str))


def _is_box(value: Any) -> bool:
    """Four numbers, none of them infinite or nan."""
    return (
        isinstance(value, list)
        and len(value) == 4
        and all(isinstance(each, (int, float)) and abs(each) < TOO_FAR for each in value)
    )


# What each record must have, and whether a value will do.
NEEDED: dict[str, dict[str, Callable[[Any], bool]]] = {
    "images": {"id": _is_id, "file_name": lambda value: isinstance(value, str)},
    "annotations": {"image_id": _is_id, "category_id": _is_id, "bbox": _is_box},
    "categories": {"id": _is_id},
}


class Truth(NamedTuple):
    """The N annotations of one image: boxes (N, 4) float64 xyxy px · classes (N,) int64 · crowd (N,) bool."""

    boxes: npt.NDArray[np.float64]
    classes: npt.NDArray[np.int64]
    crowd: npt.NDArray[np.bool_]

    def take(self, chosen: Any) -> Truth:
        """Those that an index or a mask chooses."""
        return Truth(*(each[chosen] for each in self))


class HiddenTruth:
    """The annotations of a COCO file, found by an image's file name.

    path: the file · classes: names whose places in the list are the class numbers; boxes of other categories
    are left out. Kept as a few flat arrays: 20 MB for COCO's 860,000 boxes, and the file's text is let go.

    Raises UserError for a file that can't be read, is not COCO's throughout or has none of the classes.
    """

    def __init__(self, path: str, classes: Sequence[str]) -> None:
        self.path = str(path)
        if not isfile(self.path):
            raise UserError(
                f"hidden truth {self.path} does not exist: name the file with the annotations of the "
                "unlabeled images, or set hidden_truth=None to measure without"
            )
        content = read_coco(self.path, ("images", "annotations", "categories"))
        for section, needed in NEEDED.items():
            self._check(section, content[section], needed)
        check_records(self.path, "images", content["images"], ("id", "file_name"))
        order = {name: number for number, name in enumerate(classes)}
        number_of = {one["id"]: order.get(str(one.get("name")), -1) for one in content["categories"]}
        if not any(number >= 0 for number in number_of.values()):
            raise UserError(
                f"hidden truth {self.path} has none of the classes {shorten(list(classes))}: name the file "
                "with the annotations of the unlabeled images, or set hidden_truth=None"
            )
        slot_of = {image["id"]: slot for slot, image in enumerate(content["images"])}
        rows = [
            (slot_of[one["image_id"]], number_of.get(one["category_id"], -1), _is_crowd(one), *one["bbox"])
            for one in content["annotations"]
            if one["image_id"] in slot_of
        ]
        table: npt.NDArray[np.float64] = np.array(rows, dtype=np.float64).reshape(-1, 7)
        table = table[(table[:, 1] >= 0) & (table[:, 5:] > 0).all(axis=1)]
        table = table[np.argsort(table[:, 0], kind="stable")]
        self._starts = np.searchsorted(table[:, 0], np.arange(len(slot_of) + 1))
        corners = np.concatenate([table[:, 3:5], table[:, 3:5] + table[:, 5:]], axis=1)
        self._all = Truth(corners, table[:, 1].astype(np.int64), table[:, 2].astype(np.bool_))
        self._slots: dict[str, list[tuple[int, PurePosixPath]]] = defaultdict(list)
        for slot, image in enumerate(content["images"]):
            name = PurePosixPath(image["file_name"])
            self._slots[name.name].append((slot, name))

    def _check(
        self, section: str, records: Sequence[Any], needed: Mapping[str, Callable[[Any], bool]]
    ) -> None:
        for number, one in enumerate(records):
            if not isinstance(one, dict) or not all(fits(one.get(key)) for key, fits in needed.items()):
                raise UserError(
                    f"record {number} of '{section}' in {self.path} has no usable {' or '.join(needed)}: ids "
                    "are numbers or text, names are text, a bbox is four numbers (x, y, width, height)"
                )

    def __len__(self) -> int:
        return len(self._starts) - 1

    def of(self, image_path: str) -> Truth | None:
        """The annotations of an image; None for one that the file does not name, or not for certain.

        The file's name must be the end of the path, folders included; of several the longest counts.
        """
        path = PurePosixPath(image_path)
        found = [
            (len(name.parts), slot)
            for slot, name in self._slots.get(path.name, ())
            if path.parts[len(path.parts) - len(name.parts) :] == name.parts
        ]
        longest = max((length for length, _ in found), default=0)
        slots = [slot for length, slot in found if length == longest]
        if len(slots) != 1:
            return None
        return self._all.take(slice(self._starts[slots[0]], self._starts[slots[0] + 1]))

    def in_view(self, sample: Any) -> Truth | None:
        """The annotations of a view's data sample in the view's pixels; what left the view is left out."""
        truth = self.of(sample.img_path)
        return None if truth is None else project(truth, sample.homography_matrix, sample.img_shape[:2])


def project(truth: Truth, homography: Any, size: Sequence[int]) -> Truth:
    """Annotations in the pixels of a view: homography (3, 3) from the image's px · size: height, width."""
    matrix = torch.from_numpy(np.asarray(homography, dtype=np.float32))[None]
    boxes = torch.from_numpy(truth.boxes).float()[None]
    limits = torch.tensor([[float(size[0]), float(size[1])]])
    moved = project_boxes(boxes, matrix, limits)[0].numpy().astype(np.float64)
    kept = ((moved[:, 2:] - moved[:, :2]) > MIN_SIDE).all(axis=1)
    return truth._replace(boxes=moved).take(kept)


def _is_crowd(annotation: dict[str, Any]) -> bool:
    """Whether an annotation stands for a group, or is to be ignored as one (COCO's own `ignore`)."""
    return bool(annotation.get("iscrowd")) or bool(annotation.get("ignore"))
