"""A test pipeline of ours in mmdet's own transforms, for a process without ssod."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmdet.registry import TRANSFORMS as MMDET_TRANSFORMS
from mmengine.registry import DefaultScope

from ssod.errors import UserError

META_KEYS = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")
REDUCED_NOTE = (
    "reduced_decoding is ssod's: mmdet decodes large JPEGs whole, so boxes on images of more than twice the "
    "test scale differ a little"
)


def plain_pipeline(steps: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
    """The steps as mmdet has them, and a line for each that is not the same to the pixel.

    Raises UserError for a step that exists in ssod alone.
    """
    plain: list[dict[str, Any]] = []
    notes: list[str] = []
    resizes: Mapping[str, Any] = {}
    for step in steps:
        kind = str(step["type"]).removeprefix("ssod.")
        if kind in ("LoadImage", "LoadReduced"):
            plain.append(dict(type="LoadImageFromFile"))
            if kind == "LoadReduced":
                resizes = step["resizes"]
                notes.append(REDUCED_NOTE)
        elif kind == "ResizeDrawn":
            plain.append(dict(resizes[step["view"]]))
        elif kind == "PackView":
            plain.append(dict(type="PackDetInputs", meta_keys=META_KEYS))
        else:
            _check(kind)
            plain.append({**step, "type": kind})
    return plain, notes


def _check(kind: str) -> None:
    """Raises UserError for a transform that is not mmdet's or mmcv's."""
    with DefaultScope.overwrite_default_scope("mmdet"):
        found = MMDET_TRANSFORMS.get(kind)
    if found is None or found.__module__.split(".")[0] not in ("mmdet", "mmcv"):
        raise UserError(
            f"val_dataloader.dataset.pipeline: transform {kind} is not one of mmdet's, which alone would not "
            "know it: leave it out with --cfg-options, or predict with tools/predict.py"
        )
