"""What labels and trained networks depend on, as hashes: is the output that is there the one wanted?"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ssod.data.pseudo_coco import Provenance, read_pseudo_coco
from ssod.data.unlabeled import ImageSet, split_hash
from ssod.engine.offline.partial import remove_partial_files
from ssod.errors import UserError

# What says where a run reads and how it computes, but not what: a run may move to another machine.
_NO_IDENTITY = frozenset(
    {"data_root", "num_workers", "persistent_workers", "pin_memory", "prefetch_factor", "fused", "foreach"}
)


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
    config: Config, checkpoint: str | Path, images: ImageSet, min_score: float, network: str
) -> Provenance:
    """What the labels will depend on."""
    model = {key: config.model.get(key) for key in ("detector", "data_preprocessor")}
    return Provenance(
        config_sha256=hash_config([model, labeling_pipeline(config)]),
        checkpoint_sha256=hash_file(checkpoint),
        split_sha256=split_hash(images.images),
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
