"""What labels and trained networks depend on, as hashes: is the output that is there the one wanted?"""

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ssod.data.pseudo_coco import Provenance, read_pseudo_coco
from ssod.data.unlabeled import ImageFile, ImageSet, split_hash
from ssod.engine.offline.partial import remove_partial_files
from ssod.errors import UserError

# What says where a run reads and how it computes, but not what: a run may move to another machine.
_NO_IDENTITY = frozenset(
    {"data_root", "num_workers", "persistent_workers", "pin_memory", "prefetch_factor", "fused", "foreach"}
)

_PIECE = 4096  # bytes that are read of an image's begin, middle and end


def hash_file(path: str | Path) -> str:
    """The SHA-256 of a file's bytes; UserError if it can't be read."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}): check the path") from None
    return digest.hexdigest()


def hash_contents(images: Iterable[ImageFile]) -> str:
    """The SHA-256 of the images' sorted ids, names and contents; the same wherever they lie.

    Of a file's content: its size, and 4 KiB of its begin, middle and end each. Uncompressed images of one
    camera have one size, and reading 100,000 images whole before the first is labeled takes too long. What
    changes neither is not seen.
    """
    lines = sorted(f"{image.id}\t{image.file_name}\t{_content_of(image.path)}" for image in images)
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()


def _content_of(path: str) -> str:
    """A file's size and the hash of three pieces of it; a dash for what is no file or can't be read."""
    try:
        status = os.stat(path)  # before it is opened: a pipe would wait for a writer
        if not stat.S_ISREG(status.st_mode):
            return "-"
        digest = hashlib.sha256()
        with open(path, "rb", buffering=0) as file:
            for place in (0, (status.st_size - _PIECE) // 2, status.st_size - _PIECE):
                file.seek(max(place, 0))
                digest.update(file.read(_PIECE))
    except OSError:
        return "-"
    return f"{status.st_size}\t{digest.hexdigest()}"


def hash_config(part: Any, places: bool = False) -> str:
    """The SHA-256 of a part of a config; how many workers read data doesn't count.

    places: whether it counts where data lie: folders of absolute paths, and data_root.
    """
    content = json.dumps(_identity(part, places), sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()


def _identity(value: Any, places: bool) -> Any:
    """The value without the options that don't change a result; of absolute paths the last name."""
    if isinstance(value, Mapping):
        left_out = _NO_IDENTITY - {"data_root"} if places else _NO_IDENTITY
        return {str(key): _identity(each, places) for key, each in value.items() if key not in left_out}
    if isinstance(value, (list, tuple)):
        return [_identity(each, places) for each in value]
    if places:
        return value
    return os.path.basename(value) if isinstance(value, str) and os.path.isabs(value) else value


def labeling_pipeline(config: Config) -> list[dict[str, Any]]:
    """The config's validation pipeline without annotations: images are labeled as they are tested."""
    steps = (config.get("val_dataloader") or {}).get("dataset", {}).get("pipeline")
    if not steps:
        raise UserError("the config has no val_dataloader.dataset.pipeline, with which images are labeled")
    return [dict(step) for step in steps if step["type"] != "LoadAnnotations"]


def provenance_of(
    config: Config,
    checkpoint: str | Path,
    images: ImageSet,
    min_score: float,
    network: str,
    contents: bool = False,
) -> Provenance:
    """What the labels will depend on.

    contents: of the images also what is in them, not their ids and names alone. A command is easily given
    another folder with the same names; the images of a training in stages are named by its config, and work
    dirs of earlier versions stay valid.
    """
    model = {key: config.model.get(key) for key in ("detector", "data_preprocessor")}
    return Provenance(
        config_sha256=hash_config([model, labeling_pipeline(config)]),
        checkpoint_sha256=hash_file(checkpoint),
        split_sha256=hash_contents(images.images) if contents else split_hash(images.images),
        min_score=float(min_score),
        network=network,
    )


def check_output(out: Path, provenance: Provenance) -> bool:
    """Whether the labels are there already; UserError where the file holds others."""
    if not out.exists():
        return False
    difference = provenance.difference(read_pseudo_coco(out).provenance)
    if difference is not None:
        raise UserError(f"{out} holds other labels ({difference}): remove it, or name another output")
    remove_partial_files(out)  # left there by a kill in the very last moment
    return True
