"""mmdet alone, as a script: `python plain_mmdet.py JOBS.json`; ssod is not imported.

A job: `config`, `weights`, `images` (paths) and `out`, where to write what was found.

mmcv's wheels on PyPI have no compiled operations. Where they are missing, torchvision's NMS and RoIAlign
stand in for the two that these detectors call when they predict, in a few lines that share nothing with ssod.
"""

import json
import sys
import types
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torchvision


class Operations(types.ModuleType):
    """`mmcv._ext` with two operations; every other one is there, and fails when it is called."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)

        def missing(*_: Any, **__: Any) -> None:
            raise NotImplementedError(name)

        return missing

    def nms(self, boxes: Any, scores: Any, iou_threshold: float, offset: int) -> Any:
        assert offset == 0
        return torchvision.ops.nms(boxes, scores, iou_threshold)

    def roi_align_forward(self, features: Any, rois: Any, output: Any, *_: Any, **how: Any) -> None:
        assert how["pool_mode"] == 1, "the average"
        size = how["aligned_height"], how["aligned_width"]
        scale, ratio = how["spatial_scale"], how["sampling_ratio"]
        output.copy_(torchvision.ops.roi_align(features, rois, size, scale, ratio, how["aligned"]))


def main(jobs: str) -> None:
    """Writes for each job the boxes, scores and labels of each image, best first, and the classes' names."""
    torch.set_num_threads(1)
    mmcv = find_spec("mmcv")
    assert mmcv is not None and mmcv.submodule_search_locations
    if not list(Path(mmcv.submodule_search_locations[0]).glob("_ext.*")):
        sys.modules["mmcv._ext"] = Operations("mmcv._ext")
        sys.modules["mmcv._ext"].__spec__ = ModuleSpec("mmcv._ext", None)
    from mmdet.apis import inference_detector, init_detector

    for job in json.loads(Path(jobs).read_text()):
        model = init_detector(job["config"], job["weights"], device="cpu")
        found = [inference_detector(model, image).pred_instances for image in job["images"]]
        content = {
            "classes": model.dataset_meta["classes"],
            "images": [{key: each[key].tolist() for key in ("bboxes", "scores", "labels")} for each in found],
        }
        Path(job["out"]).write_text(json.dumps(content))
    assert not [name for name in sys.modules if name == "ssod" or name.startswith("ssod.")]


if __name__ == "__main__":
    main(sys.argv[1])
