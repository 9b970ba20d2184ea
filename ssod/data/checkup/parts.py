"""The datasets of a config as the doctor sees them: the files' raw records, nothing built or refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from os.path import join
from typing import Any

from mmdet.datasets import CocoDataset

from ssod.data.checkup.findings import Finding, fails
from ssod.data.coco_file import ANNOTATION_KEYS, IMAGE_KEYS, check_kinds, read_coco
from ssod.errors import UserError
from ssod.registry import DATASETS

TRAINED = ("labeled", "unlabeled")
EVALUATED = ("val", "test")
Record = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """One dataset of the config: the labeled or the unlabeled images, those of validation or of the test.

    name: "labeled", "unlabeled" (or "unlabeled 2", ...), "val", "test" · config: the dataset's own, without
    wrappers · ann_file, folder: as the dataset joins them · images, annotations, categories: the file's
    records, all of them in `images_in_file`, those that belong to the part in `images` · left_out: paths of
    what a dataset of a folder could not take for images. Annotations of unlabeled images are not read.
    """

    name: str
    config: Mapping[str, Any]
    ann_file: str
    folder: str
    classes: tuple[str, ...]
    images_in_file: list[Record] = field(default_factory=list)
    images: list[Record] = field(default_factory=list)
    annotations: list[Record] = field(default_factory=list)
    categories: list[Record] = field(default_factory=list)
    left_out: tuple[str, ...] = ()

    @property
    def evaluated(self) -> bool:
        """Whether metrics are computed on it."""
        return self.name in EVALUATED

    @property
    def has_boxes(self) -> bool:
        """Whether its boxes are read."""
        return self.evaluated or self.name == "labeled"

    @property
    def where(self) -> str:
        """The part and its file, for a finding."""
        return f"{self.name}: {self.ann_file or self.folder or self.config.get('images', '')}"

    def path(self, image: Mapping[str, Any]) -> str:
        """The file of an image."""
        return join(self.folder, str(image["file_name"]))


def dataset_configs(config: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(name, config) of each dataset that the config trains or evaluates on, wrappers taken off."""
    train = (config.get("train_dataloader") or {}).get("dataset") or {}
    for number, source in enumerate(train.get("datasets") or [train]):
        name = "labeled" if number == 0 else "unlabeled" if number == 1 else f"unlabeled {number}"
        if unwrapped(source):
            yield name, unwrapped(source)
    for name in EVALUATED:
        dataset = (config.get(f"{name}_dataloader") or {}).get("dataset") or {}
        if unwrapped(dataset):
            yield name, unwrapped(dataset)


def unwrapped(dataset: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config of the innermost dataset: without PseudoLabeled, RepeatDataset and their like."""
    while dataset.get("dataset"):
        dataset = dataset["dataset"]
    return dataset


def described(name: str, dataset: Mapping[str, Any]) -> Part:
    """The part with its paths and classes, nothing read yet."""
    root = str(dataset.get("data_root") or "")
    prefix = dataset.get("data_prefix") or {}
    folder = prefix.get("img", prefix.get("img_path", "")) if isinstance(prefix, Mapping) else str(prefix)
    classes = (dataset.get("metainfo") or {}).get("classes") or CocoDataset.METAINFO["classes"]
    names = (classes,) if isinstance(classes, str) else tuple(str(each) for each in classes)
    ann_file = str(dataset.get("ann_file") or "")
    return Part(name, dataset, join(root, ann_file) if ann_file else "", join(root, str(folder or "")), names)


class Reader:
    """Reads parts; a file that two of them share is parsed once."""

    def __init__(self) -> None:
        self.contents: dict[str, dict[str, Any]] = {}

    def read(self, part: Part) -> Part | Finding:
        """The part with its records; a finding where there are none to be had."""
        if not part.ann_file:
            return self._built(part)
        mend = "correct the path or the file"
        try:
            if part.ann_file not in self.contents:
                self.contents[part.ann_file] = read_coco(part.ann_file, ("images",))
            _check_kinds(part, self.contents[part.ann_file])
        except UserError as error:
            return fails("annotations-unreadable", part.where, error.one_line, mend)
        content = self.contents[part.ann_file]
        images = content["images"]
        read = replace(part, images_in_file=images, images=list(_chosen(part.config, images)))
        if not part.has_boxes:
            return read
        for section in ("annotations", "categories"):
            if not isinstance(content.get(section), list):
                return fails("annotations-unreadable", part.where, f"no list '{section}'", mend)
        categories = [each for each in content["categories"] if isinstance(each, dict)]
        return replace(read, annotations=content["annotations"], categories=categories)

    def _built(self, part: Part) -> Part | Finding:
        """A part of a dataset type that names no annotation file, by what the built dataset lists."""
        try:
            dataset = DATASETS.build({**part.config, "pipeline": []})
            infos = [dataset.get_data_info(index) for index in range(len(dataset))]
        except Exception as error:
            return refused(part, error)
        images = [
            {
                "id": one.get("img_id"),
                "file_name": one["img_path"],
                "width": one.get("width"),
                "height": one.get("height"),
            }
            for one in infos
            if "img_path" in one
        ]
        left_out = tuple(str(path) for path, _ in getattr(dataset, "left_out", ()))
        return replace(part, folder="", images_in_file=images, images=images, left_out=left_out)


def _check_kinds(part: Part, content: Mapping[str, Any]) -> None:
    """Raises UserError for values that the checks can't reckon with: widths in quotes, lists as ids."""
    check_kinds(part.ann_file, "images", content["images"], IMAGE_KEYS)
    if part.has_boxes:
        for section, keys in (("annotations", ANNOTATION_KEYS), ("categories", ("id", "name"))):
            records = content.get(section)
            if isinstance(records, list):
                # Boxes that are not four numbers are a finding of their own.
                check_kinds(part.ann_file, section, records, [key for key in keys if key != "bbox"])


def refused(part: Part, error: Exception) -> Finding:
    """The finding that a dataset can't be built."""
    line = error.one_line if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    return fails("dataset-refused", part.where, " ".join(line.split()), "change what the message names")


def _chosen(config: Mapping[str, Any], images: Sequence[Any]) -> Iterator[Record]:
    """The records that `only_ids`, `except_ids` and `indices` leave; broken records are dropped."""
    only, without = config.get("only_ids"), config.get("except_ids")
    kept = [one for one in images if isinstance(one, dict) and one.get("id") is not None]
    if only is not None:
        wanted = set(only)
        kept = [one for one in kept if one["id"] in wanted]
    elif without is not None:
        unwanted = set(without)
        kept = [one for one in kept if one["id"] not in unwanted]
    indices = config.get("indices")
    if isinstance(indices, int):
        kept = kept[:indices]
    elif indices is not None:
        kept = [kept[index] for index in indices if index < len(kept)]
    yield from (one for one in kept if one.get("file_name"))
