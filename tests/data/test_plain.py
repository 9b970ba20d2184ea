"""The exported test pipeline: mmdet's own steps, and the same pixels from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
from mmengine.registry import DefaultScope

from ssod.data import pipelines
from ssod.data.plain import REDUCED_NOTE, plain_pipeline
from ssod.errors import UserError

pytestmark = pytest.mark.usefixtures("registered")


def run(steps: Any, path: Path, scope: str) -> Any:
    from mmengine.dataset import Compose

    with DefaultScope.overwrite_default_scope(scope):
        return Compose(steps)({"img_path": str(path), "img_id": 3})


@pytest.mark.parametrize("kind", ["jpg", "png", "grey"])
@pytest.mark.parametrize("scale", [(320, 240), (1333, 800), None], ids=str)
def test_the_pixels_are_the_same(data_root: Path, tmp_path: Path, scale: Any, kind: str) -> None:
    path = sorted((data_root / "bccd/images").iterdir())[0]
    if kind != "jpg":
        image = cv2.imread(str(path))
        path = tmp_path / "image.png"
        cv2.imwrite(str(path), image if kind == "png" else image[..., 0])
    ours = [step for step in pipelines.test(scale) if step["type"] != "LoadAnnotations"]
    steps, notes = plain_pipeline(ours)
    assert notes == []
    own, theirs = run(ours, path, "ssod"), run(steps, path, "mmdet")
    assert torch.equal(own["inputs"], theirs["inputs"])
    for name in ("ori_shape", "img_shape", "scale_factor", "img_id", "img_path"):
        if scale is not None or name != "scale_factor":  # without a resize mmdet has none
            assert getattr(own["data_samples"], name) == getattr(theirs["data_samples"], name)


def test_reduced_decoding_is_said_to_differ() -> None:
    steps, notes = plain_pipeline(pipelines.test((320, 240), reduced_decoding=True))
    assert notes == [REDUCED_NOTE]
    plain, _ = plain_pipeline(pipelines.test((320, 240)))
    assert steps == plain and [step["type"] for step in steps] == [
        "LoadImageFromFile", "Resize", "LoadAnnotations", "PackDetInputs"
    ]  # fmt: skip


def test_mmdets_own_steps_stay_and_others_are_refused() -> None:
    pad = dict(type="Pad", size_divisor=32)
    assert plain_pipeline([pad]) == ([pad], [])
    for kind in ("BatchResize", "ssod.BatchResize", "Unheard"):
        with pytest.raises(UserError, match=f"transform {kind.removeprefix('ssod.')} is not one of mmdet's"):
            plain_pipeline([dict(type=kind)])
