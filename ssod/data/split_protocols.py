"""The four published partial-label draws of COCO train2017, to the last image.

They share file names and almost no image: a number is comparable only with its protocol's name.
"""

import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ssod.errors import UserError

Flags = npt.NDArray[np.bool_]
Positions = npt.NDArray[np.int64]
NUM_IMAGES = 118_287  # of instances_train2017.json
NUM_WITH_BOX = 117_266  # of them with a non-crowd annotation
DRAWN = ("stac", "soft_teacher")
LISTED = ("unbiased_teacher", "paddle")


@dataclass(frozen=True)
class Parts:
    """Positions in the file's images, ascending, no image in two parts.

    left_out: images that the protocol gives to no part · seed: what the generator was started with; None
    for a list.
    """

    labeled: Positions
    unlabeled: Positions
    held_out: Positions
    left_out: Positions
    seed: int | list[int] | None


def drawn(protocol: str, num_images: int, percent: Decimal, fold: int, offset: int = 0) -> Parts:
    """The draw of `stac` or `soft_teacher` over positions in file order; nothing is filtered before it.

    `stac` (STAC, mmdet, hikvision's SSOD) draws with replacement from `seed = fold`, so repeats make the
    labeled part smaller than the percentage: 11,285 images at 10 % of fold 1. `soft_teacher` (SoftTeacher,
    ConsistentTeacher, PseCo, Semi-DETR) draws without, from `seed = fold + offset`; in the released code the
    offset was the shell's $RANDOM. The size is `int(percent / 100 * N)` in floating point, as published.
    Smaller percentages of a fold are contained in larger ones. Raises UserError for an empty draw.
    """
    size = int(float(percent) / 100 * num_images)
    if size == 0:
        raise UserError(
            f"{percent} % of {num_images} images is less than one under protocol {protocol}, which rounds "
            "down: raise --percent, or use --protocol own"
        )
    seed = fold + offset
    if not 0 <= seed < 2**32:
        raise UserError(f"protocol {protocol}: fold {fold} + seed {offset} is no seed; use 0 to 2^32 - 1")
    # The stream of numpy.random.seed(seed); numpy.random.choice(range(N), ...), without the global state.
    generator = np.random.RandomState(seed)
    order = generator.choice(num_images, size=size, replace=protocol == "stac")
    return split_by(np.unique(order), num_images, seed)


def listed(
    protocol: str,
    ids: Sequence[Any],
    with_box: Flags,
    lists: Mapping[Decimal, Mapping[int, list[int]]],
    percent: Decimal,
    fold: int,
) -> Parts:
    """The split of `unbiased_teacher` or `paddle`: a published list over images sorted by id.

    `unbiased_teacher` (unbiased-teacher, DenseTeacher) counts only images with a non-crowd box, of which
    train2017 has 117,266; as in its released code the other 1,021 are neither labeled nor unlabeled.
    `paddle` (PaddleDetection) reads the same list over all 118,287. Not nested. Raises UserError for a
    file with other numbers of images, and for a percentage or fold that the list doesn't have.
    """
    filtered = protocol == "unbiased_teacher"
    counts = [len(ids), int(with_box.sum())][: 1 + filtered]
    if counts != [NUM_IMAGES, NUM_WITH_BOX][: 1 + filtered]:
        words = "{:,} images, {:,} of them with a box" if filtered else "{:,} images"
        raise UserError(
            f"protocol {protocol} is a list over instances_train2017.json with its "
            f"{words.format(NUM_IMAGES, NUM_WITH_BOX)}; this file has {words.format(*counts)}: "
            "use --protocol own, stac or soft_teacher"
        )
    order = np.argsort(np.asarray(ids), kind="stable")
    left_out = np.flatnonzero(~with_box) if filtered else None
    if filtered:
        order = order[with_box[order]]
    chosen = _chosen(lists, percent, fold, len(order))
    return split_by(np.sort(order[chosen]), len(ids), None, left_out=left_out)


def split_by(
    labeled: Positions,
    num_images: int,
    seed: int | list[int] | None,
    held_out: Positions | None = None,
    left_out: Positions | None = None,
) -> Parts:
    """The parts where every image that is in none of the others is unlabeled."""
    nothing = np.zeros(0, dtype=np.int64)
    held_out = nothing if held_out is None else held_out
    left_out = nothing if left_out is None else left_out
    rest = np.ones(num_images, dtype=np.bool_)
    for taken in (labeled, held_out, left_out):
        rest[taken] = False
    return Parts(labeled, np.flatnonzero(rest), held_out, left_out, seed)


def _chosen(
    lists: Mapping[Decimal, Mapping[int, list[int]]], percent: Decimal, fold: int, num_images: int
) -> Positions:
    """The list of one percentage and fold, (n,) indices; UserError if there is none."""
    if percent not in lists:
        known = ", ".join(f"{each.normalize():f}" for each in sorted(lists))
        raise UserError(f"the list has no {percent} %: use --percent {known}")
    if fold not in lists[percent]:
        known = ", ".join(map(str, sorted(lists[percent])))
        raise UserError(f"the list has no fold {fold} at {percent} %: use --fold {known}")
    chosen = np.asarray(lists[percent][fold], dtype=np.int64)
    if len(np.unique(chosen)) != len(chosen) or chosen.min() < 0 or chosen.max() >= num_images:
        raise UserError(
            f"the list of fold {fold} at {percent} % has an index twice or outside of 0 to {num_images - 1}: "
            "download it again"
        )
    return chosen


def read_lists(path: str | Path) -> tuple[dict[Decimal, dict[int, list[int]]], str]:
    """The published lists, `{percent: {fold: [index, ...]}}`, and the SHA-256 of the file's content.

    Takes COCO_supervision.txt as unbiased-teacher ships it, or a JSON file that holds the same under
    `lists`, packed with gzip or not. Raises UserError for anything else.
    """
    path = Path(path)
    try:
        raw = path.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            raw = gzip.decompress(raw)
        content = json.loads(raw)
        content = content.get("lists", content)
        lists = {
            Decimal(percent): {int(fold): _whole(chosen) for fold, chosen in folds.items()}
            for percent, folds in content.items()
        }
        return lists, hashlib.sha256(raw).hexdigest()
    except (OSError, EOFError, ValueError, TypeError, AttributeError, InvalidOperation) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"the published list {path} can't be read ({reason}): name the COCO_supervision.txt of "
            "unbiased-teacher with --list"
        ) from None


def _whole(chosen: Any) -> list[int]:
    """The list, if it is one of whole numbers; TypeError otherwise."""
    if not isinstance(chosen, list) or not chosen or not all(type(each) is int for each in chosen):
        raise TypeError("a list of whole numbers is needed for each percent and fold")
    return chosen
