"""Decoding a JPEG at a half, a quarter or an eighth of its size, where all its views are smaller still.

A view's scale is drawn when its resize runs, after the image was decoded for all views. So here the scales of
all views are drawn first, the image is decoded as small as the largest of them allows, and each view is
resized to the scale drawn for it. Views keep the geometry of the file's own pixels: only whole divisions of
both sides are used, and homographies and boxes are computed from the sizes as the file has them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import mmcv
from mmdet.datasets import transforms as mmdet_transforms
from mmdet.structures.bbox import autocast_box_type

from ssod.data.decode import REDUCTIONS, as_loaded, read_reduced
from ssod.registry import TRANSFORMS

Record = dict[str, Any]
Size = tuple[int, int]  # width, height


@TRANSFORMS.register_module()
class LoadReduced:
    """The record of `LoadImage` with an image that may be smaller than its `img_shape` says.

    resizes: for each view the config of its resize (Resize, RandomResize, RandomChoiceResize), whose scale is
    drawn here; `ResizeDrawn` finds it under the view's name in `drawn_scales`.
    """

    def __init__(self, resizes: Mapping[str, Record]) -> None:
        self.draws = {view: drawing(step) for view, step in resizes.items()}

    def __call__(self, results: Record) -> Record:
        scales = {view: draw({})["scale"] for view, draw in self.draws.items()}
        image, times = read_reduced(
            results["img_path"], lambda width, height: reduction((width, height), scales.values())
        )
        shape = image.shape[0] * times, image.shape[1] * times
        results.update(as_loaded(image, shape), drawn_scales=scales)
        return results


@TRANSFORMS.register_module()
class KeepScale:
    """Takes the place of a resize within RandomResize: the record with its scale, no pixel touched."""

    def __init__(self, scale: Any, **_: Any) -> None:
        self.scale = scale

    def __call__(self, results: Record) -> Record:
        results["scale"] = self.scale
        return results


@TRANSFORMS.register_module()
class ResizeDrawn(mmdet_transforms.Resize):  # type: ignore[misc]
    """mmdet's resize to the scale that `LoadReduced` drew for a view, keeping the aspect ratio.

    The new size, the boxes and the homography follow from `img_shape`, whatever size was decoded.
    """

    def __init__(self, view: str, **options: Any) -> None:
        super().__init__(scale=1, keep_ratio=True, **options)  # the scale comes with the record
        self.view = view

    @autocast_box_type()  # type: ignore[misc]
    def transform(self, results: Record) -> Record:
        """The record with the view's image, boxes and homography."""
        results["scale"] = results["drawn_scales"][self.view]
        self._resize_img(results)
        self._resize_bboxes(results)
        self._resize_masks(results)
        self._record_homography_matrix(results)
        return results

    def _resize_img(self, results: Record) -> None:
        height, width = results["img_shape"]
        size = mmcv.rescale_size((width, height), results["scale"])
        results["img"] = mmcv.imresize(
            results["img"], size, interpolation=self.interpolation, backend=self.backend
        )
        results["img_shape"] = results["img"].shape[:2]
        results["scale_factor"] = size[0] / width, size[1] / height
        results["keep_ratio"] = True


def reduction(size: Size, scales: Iterable[Any]) -> int:
    """How many times smaller an image of `size` may be decoded, so that no view of `scales` enlarges it.

    1 unless the image's sides can be divided: a pixel half beyond the edge would stretch all others.
    """
    sizes = [mmcv.rescale_size(size, scale) for scale in scales]
    fit = [
        times
        for times in REDUCTIONS
        if all(side % times == 0 for side in size)
        and all(new <= side // times for each in sizes for new, side in zip(each, size, strict=True))
    ]
    return max(fit, default=1)


def drawing(step: Record) -> Any:
    """The transform that draws the scale of a resize and leaves the image alone."""
    return TRANSFORMS.build(_without_pixels(step))


def _without_pixels(step: Record) -> Record:
    """The config of a resize that only notes its scale."""
    if step["type"] == "BatchResize":
        return {**step, "resize": _without_pixels(step["resize"])}
    if step["type"] == "Resize":
        return {**step, "type": "ssod.KeepScale"}
    return {**step, "resize_type": "ssod.KeepScale"}
