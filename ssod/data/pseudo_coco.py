"""Offline pseudo labels: their file (COCO with scores and where they come from), and their dataset."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

import ssod
from ssod.data.coco_file import check_records, read_coco, shorten
from ssod.data.tracking import check_homography
from ssod.errors import UserError
from ssod.registry import DATASETS

ANNOTATION_KEYS = ("id", "image_id", "category_id", "bbox", "score")


@dataclass(frozen=True)
class Provenance:
    """What labels depend on; two files with the same provenance hold the same labels.

    config_sha256: of the detector and the test pipeline · checkpoint_sha256: of the weights' file ·
    split_sha256: of the images' sorted ids and names · min_score: boxes below it were dropped ·
    network: "teacher" or "student" of that checkpoint.
    """

    config_sha256: str
    checkpoint_sha256: str
    split_sha256: str
    min_score: float
    network: str

    def difference(self, found: Mapping[str, Any] | None) -> str | None:
        """How the labels of another provenance differ, such as "of other images"; None if they don't."""
        if found is None:
            return "of unknown provenance"
        words = {
            "config_sha256": "of another detector or test pipeline",
            "checkpoint_sha256": "of another checkpoint",
            "split_sha256": "of other images",
        }
        for name in (field.name for field in fields(self)):
            if found.get(name) != getattr(self, name):
                return words.get(name) or f"with {name} {found.get(name)}, not {getattr(self, name)}"
        return None


@dataclass(frozen=True)
class PseudoFile:
    """The content of a file of pseudo labels, checked; provenance is None in a file that is not ours.

    skipped: images that could not be read when the others were labeled, with their `fault`.
    """

    path: str
    provenance: dict[str, Any] | None
    images: list[dict[str, Any]]
    categories: list[dict[str, Any]]
    annotations: list[dict[str, Any]]
    skipped: list[dict[str, Any]]


def write_pseudo_coco(
    path: str | Path,
    provenance: Provenance,
    categories: Sequence[Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]],
    skipped: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Writes the file whole or not at all; the same arguments give the same bytes.

    rows: a dict for each image, `id, file_name, width, height` in pixels and `boxes`, a list of
    `[x, y, width, height, category id, score]` · skipped: those that could not be read, with their `fault`.
    """
    names = ("id", "file_name", "width", "height")
    boxes = [(row["id"], box) for row in rows for box in row["boxes"]]
    content: dict[str, Any] = {
        "provenance": {**asdict(provenance), "ssod": ssod.__version__},
        "images": [{name: row[name] for name in names} for row in rows],
        "categories": [dict(each) for each in categories],
        "annotations": [
            {
                "id": number,
                "image_id": image,
                "category_id": box[4],
                "bbox": box[:4],
                "area": round(box[2] * box[3], 2),
                "iscrowd": 0,
                "score": box[5],
            }
            for number, (image, box) in enumerate(boxes, 1)
        ],
    }
    if skipped:
        content["skipped"] = [{name: row[name] for name in ("id", "file_name", "fault")} for row in skipped]
    path = Path(path)
    partial = path.with_name(f".{path.name}.new")
    with partial.open("w", encoding="utf-8") as file:
        json.dump(content, file)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def read_pseudo_coco(path: str | Path) -> PseudoFile:
    """The content of a file of pseudo labels; UserError for one that is missing, broken or has no scores."""
    content = read_coco(str(path), ("images", "categories", "annotations"))
    check_records(str(path), "images", content["images"], ("id", "file_name"))
    check_records(str(path), "categories", content["categories"], ("id", "name"))
    check_records(str(path), "annotations", content["annotations"], ANNOTATION_KEYS)
    sections = {name: content[name] for name in ("images", "categories", "annotations")}
    known = {name: {record["id"] for record in sections[name]} for name in ("images", "categories")}
    for one in sections["annotations"]:
        if one["image_id"] not in known["images"] or one["category_id"] not in known["categories"]:
            raise UserError(
                f"annotation {one['id']} of {path} is of an image or category that the file does not list: "
                "write it again with tools/pseudo_label.py"
            )
    provenance, skipped = content.get("provenance"), content.get("skipped")
    skipped = skipped if isinstance(skipped, list) else []
    check_records(str(path), "skipped", skipped, ("id", "file_name"))
    known_provenance = provenance if isinstance(provenance, dict) else None
    return PseudoFile(str(path), known_provenance, **sections, skipped=skipped)


@DATASETS.register_module()
class PseudoLabeled(Dataset[Any]):
    """Unlabeled images of another dataset, with boxes from a file of pseudo labels.

    dataset: the config of the unlabeled images, whose pipeline is `offline(...)` of ssod/data/pipelines.py ·
    labels: the file, as tools/pseudo_label.py writes it; None where `stages` of the config will write it ·
    drop_empty: leaves out images that have no box, as the released code of STAC does. A missing box would
    teach background where an object is; an image whose objects were all missed would teach nothing else.

    Items are those of the pipeline: `dict(strong=P)` with the boxes in the strong view's pixels, and scores.
    Raises UserError for labels of other images or classes, when no image is left, and for a transform that
    would not take the boxes along.
    """

    def __init__(
        self, dataset: Mapping[str, Any], labels: str | Path | None = None, drop_empty: bool = True
    ) -> None:
        if labels is None:
            raise UserError(
                "PseudoLabeled has no labels: name the file that tools/pseudo_label.py wrote, or let "
                "stages=dict(...) of the config write it"
            )
        self.dataset: Any = DATASETS.build(dict(dataset))
        check_homography("strong", self.dataset.pipeline)
        self.ann_file = str(labels)
        file = read_pseudo_coco(labels)
        self._take(file)
        counts = np.diff(self._starts)[self._slots]
        self._kept = np.flatnonzero(counts > 0) if drop_empty else np.arange(len(counts))
        if not len(self._kept):
            threshold = (file.provenance or {}).get("min_score", "the bound it was written with")
            raise UserError(
                f"labels {labels} have no box for any of {len(counts)} images (score >= {threshold}): lower "
                "min_score, or train the labeling network longer"
            )

    def _take(self, file: PseudoFile) -> None:
        """Keeps the boxes as a few flat arrays, which loader workers share without copying."""
        classes = list(self.metainfo["classes"])
        names = {each["id"]: each["name"] for each in file.categories}
        strange = sorted(set(names.values()) - set(classes))
        if strange:
            raise UserError(
                f"labels {file.path} have categories {shorten(strange)} that are not among the dataset's "
                f"classes {shorten(classes)}: label with a model of the same classes"
            )
        images = [*file.images, *file.skipped]  # those of no box
        order = {image["id"]: slot for slot, image in enumerate(images)}
        boxes = sorted(file.annotations, key=lambda one: order[one["image_id"]])  # stable: scores stay sorted
        counts = np.bincount([order[one["image_id"]] for one in boxes], minlength=len(order))
        self._starts = np.concatenate(([0], np.cumsum(counts)))
        corners = np.array([one["bbox"] for one in boxes], dtype=np.float32).reshape(-1, 4)
        corners[:, 2:] += corners[:, :2]
        self._boxes = corners
        self._classes = np.array([classes.index(names[one["category_id"]]) for one in boxes], dtype=np.int64)
        self._scores = np.array([one["score"] for one in boxes], dtype=np.float32)
        self._slots = np.array([self._slot_of(i, order, images) for i in range(len(self.dataset))], dtype=int)

    def _slot_of(self, index: int, order: Mapping[Any, int], images: Sequence[Mapping[str, Any]]) -> int:
        """Which image of the file an image of the dataset is; UserError if none, or one of another name."""
        info = self.dataset.get_data_info(index)
        slot = order.get(info["img_id"])
        name = Path(info["img_path"]).name
        if slot is None or Path(images[slot]["file_name"]).name != name:
            raise UserError(
                f"labels {self.ann_file} have no image {info['img_id']} ({name}): they were written for "
                "other images; label these with tools/pseudo_label.py"
            )
        return slot

    @property
    def metainfo(self) -> dict[str, Any]:
        """That of the unlabeled dataset, classes first of all."""
        return dict(self.dataset.metainfo)

    @property
    def left_out(self) -> tuple[Any, ...]:
        """The files that the unlabeled dataset could not take for images."""
        return tuple(getattr(self.dataset, "left_out", ()))

    def full_init(self) -> None:
        """Does nothing: the constructor reads all there is."""

    def __len__(self) -> int:
        return len(self._kept)

    def get_data_info(self, index: int) -> dict[str, Any]:
        """The unlabeled dataset's record: path, id, size; no box."""
        return dict(self.dataset.get_data_info(int(self._kept[index])))

    def __getitem__(self, index: int) -> Any:
        slot = self._slots[self._kept[index]]
        rows = slice(self._starts[slot], self._starts[slot + 1])
        labels = {"boxes": self._boxes[rows], "classes": self._classes[rows], "scores": self._scores[rows]}
        return self.dataset.pipeline({**self.get_data_info(index), "offline_labels": labels})
