"""Labels from a file in the frame of a view, and STAC's geometry within a box."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ssod.core.labels import BoxLabels, project_labels
from ssod.data.augment import TrackedAlbumentations
from ssod.registry import TRANSFORMS

Record = dict[str, Any]


def labels_in_view(results: Record, min_visible: float = 0.0) -> BoxLabels:
    """The record's `offline_labels` in pixels of the view as it is now; see `PlaceOfflineLabels`."""
    given = {key: torch.from_numpy(value) for key, value in results["offline_labels"].items()}
    labels = BoxLabels.pad([given["boxes"]], [given["classes"]], [given["scores"]])
    homography = torch.from_numpy(np.asarray(results["homography_matrix"]))[None]
    size = torch.tensor([results["img_shape"]])
    return project_labels(labels, homography, size, min_visible)


@TRANSFORMS.register_module()
class BoxAffine:
    """The view with what is inside one of its boxes shifted, turned or sheared; the boxes stay.

    The box-level geometry of STAC's released code: a box of the record's `offline_labels` is drawn, and
    its content goes through `transforms` (albumentations' dicts), cut at the box's border. A record without
    a visible box stays as it is, and so does one without offline labels, that of an online method.
    """

    def __init__(self, transforms: list[Record]) -> None:
        self.inside = TrackedAlbumentations(transforms)

    def __call__(self, results: Record) -> Record:
        if "offline_labels" not in results:
            return results
        labels = labels_in_view(results)
        boxes = labels.boxes[0, labels.valid[0]].numpy().astype(int)
        boxes = boxes[((boxes[:, 2:] - boxes[:, :2]) > 1).all(axis=1)]
        if not len(boxes):
            return results
        left, top, right, bottom = boxes[np.random.randint(len(boxes))]
        image = results["img"].copy()
        patch = image[top:bottom, left:right]
        image[top:bottom, left:right] = self.inside.draw(patch)["image"]
        results["img"] = image
        return results
