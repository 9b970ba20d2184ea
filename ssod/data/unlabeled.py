"""Unlabeled images as people have them: a folder, a glob, a list, a COCO file, or several of them mixed."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from mmdet.datasets import BaseDetDataset, CocoDataset

from ssod.data.datasets import PartOfFile
from ssod.data.image_index import Records, index_images
from ssod.data.image_sources import Source, list_images
from ssod.data.split_manifest import hash_of_ids
from ssod.errors import UserError
from ssod.registry import DATASETS


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
    """The images of a folder (with all below), a glob, a list (`.txt`), a COCO file (`.json`), or one image.

    A list has one path a line. Relative names begin at `root`, by default the folder of the list or the COCO
    file. Images of a folder or a list are numbered from 1 in the order of their names; a COCO file's keep
    their ids. Annotations are not read. Raises UserError for a source that is missing, empty, of another
    kind, or names an image twice.
    """
    if root is not None and Path(source).suffix not in (".txt", ".json"):
        kind = "a folder" if Path(source).is_dir() else "neither"
        raise UserError(f"an image root ({root}) is for lists and COCO files; {source} is {kind}")
    listing = list_images(source, root)
    twice = next((one for one, other in pairwise(listing.names) if one == other), None)
    if twice is not None:
        raise UserError(f"{source} names image {twice} twice: list every image once")
    paths = listing.paths()
    if Path(source).suffix == ".json" and not Path(paths[0]).is_file():
        raise UserError(
            f"image {paths[0]} of COCO file {source} does not exist: say with --image-root where its "
            "file names begin"
        )
    files = zip(listing.ids, listing.names, paths, strict=True)
    return ImageSet(tuple(ImageFile(*each) for each in files), listing.categories)


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


@DATASETS.register_module()
class UnlabeledImages(PartOfFile, BaseDetDataset):  # type: ignore[misc]
    """Images without any annotation file: a folder will do.

    images: a folder (with all folders below), a glob (`photos/**/*.jpg`), a text list with one path a line, a
    COCO file, or a list of several of these; relative ones begin at `data_root`. A file that is reached twice
    counts once. Relative names within lists and COCO files begin at `data_prefix=dict(img=...)`, by default
    the folder of the list or the COCO file. A COCO file alone keeps its ids, everything else is numbered in
    the order of the names, as tools/pseudo_label.py does.

    Sizes are those that are displayed, read from the files' headers and kept in the cache
    (ssod/data/file_cache.py). Files without an image's header are left out and listed in `left_out`.
    `metainfo` may be missing: a config gives it the labeled images' classes. `filter_cfg=dict(min_size=32)`,
    `only_ids`, `except_ids`, `indices`, `pipeline`, `test_mode` and `lazy_init` are those of `UnlabeledCoco`.

    Raises UserError for a source that is missing or empty, and when no image is left.
    """

    METAINFO = CocoDataset.METAINFO  # as the labeled images have it, its palette included
    data_list: Any
    data_prefix: dict[str, str]

    def __init__(
        self,
        images: Source | Sequence[Source],
        data_root: str = "",
        data_prefix: Mapping[str, str] | None = None,
        metainfo: Mapping[str, Any] | None = None,
        filter_cfg: Mapping[str, Any] | None = None,
        only_ids: Sequence[Any] | None = None,
        except_ids: Sequence[Any] | None = None,
        indices: int | Sequence[int] | None = None,
        pipeline: Sequence[Any] = (),
        test_mode: bool = False,
        lazy_init: bool = False,
    ) -> None:
        several = [images] if isinstance(images, (str, Path)) else list(images)
        self.sources = [os.path.join(data_root, str(each)) for each in several]
        self.left_out: tuple[Any, ...] = ()
        super().__init__(
            ann_file=", ".join(self.sources),  # what messages name
            metainfo=metainfo,
            data_prefix=dict(data_prefix or {}),
            filter_cfg=filter_cfg,
            only_ids=only_ids,
            except_ids=except_ids,
            indices=indices,
            serialize_data=False,  # the records are packed already
            pipeline=list(pipeline),
            test_mode=test_mode,
            lazy_init=lazy_init,
        )
        self.data_root = data_root

    def load_data_list(self) -> Records:
        """The records of all sources, or of the part of them that is asked for."""
        prefix = self.data_prefix.get("img")
        root = None if prefix is None else os.path.join(self.data_root, prefix)
        listing = list_images(self.sources, root)
        key = json.dumps([os.path.abspath(each) for each in (*self.sources, root or "")])
        index = index_images(listing, key)
        self.left_out = index.left_out
        self.data_prefix = {"img": listing.folder}
        if not len(index.records):
            path, reason = self.left_out[0]
            raise UserError(f"none of {len(listing.names)} images of {self.ann_file} can be read; the first: "
                            f"{path} ({reason})")  # fmt: skip
        records = index.records
        if self.only_ids is not None or self.except_ids is not None:
            records = records.take(np.flatnonzero(self.kept(records.ids.tolist())))
        # With names, for numbers alone are the same for any folder of as many images.
        names = (path.removeprefix(listing.folder) for path in records.paths())
        self.part_sha256 = hash_of_ids(
            f"{number}\t{name}" for number, name in zip(records.ids.tolist(), names, strict=True)
        )
        return records

    def filter_data(self) -> Records:
        """The records whose smaller side is at least `min_size`; raises UserError if none is."""
        min_size = (self.filter_cfg or {}).get("min_size", 0)
        records: Records = self.data_list
        kept = np.flatnonzero(records.sizes.min(1) >= min_size)
        if not len(kept):
            raise UserError(
                f"no unlabeled image is left of {len(records)} in {self.ann_file} after "
                f"filter_cfg={self.filter_cfg}: name other images, or relax the filter"
            )
        return records.take(kept)

    def get_data_info(self, idx: int) -> dict[str, Any]:
        """The record of an image: `img_path, img_id, height, width, sample_idx`."""
        self.full_init()
        return {**self.data_list[idx], "sample_idx": idx % len(self.data_list)}

    def _get_unserialized_subset(self, indices: int | Sequence[int]) -> Records:
        """The first (or, below 0, last) records, or those at the given places."""
        records: Records = self.data_list
        if isinstance(indices, int):
            chosen: Records = records[:indices] if indices >= 0 else records[indices:]
            return chosen
        return records.take(np.asarray(indices, dtype=np.int64))
