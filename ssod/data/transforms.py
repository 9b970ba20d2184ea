"""Loading an image once, showing it as one or two views, and collating views into a batch.

Pixels are BGR, as OpenCV decodes them, from here to the model's preprocessor, whose `bgr_to_rgb` says what
its network wants. Only `TrackedAlbumentations` turns them to RGB, for as long as its transforms run.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from mmdet.datasets.transforms import PackDetInputs
from mmengine.dataset import Compose
from torch.utils.data import get_worker_info

from ssod.core.image_stack import ImageStack, common_size
from ssod.data.boxwise import labels_in_view
from ssod.data.decode import as_loaded, read_image
from ssod.data.pixels import planes_of
from ssod.data.tracking import check_homography
from ssod.registry import FUNCTIONS, TRANSFORMS

Record = dict[str, Any]

VIEWS = ("labeled", "weak", "strong")
META_KEYS = (
    "img_id",
    "img_path",
    "ori_shape",
    "img_shape",
    "scale_factor",
    "flip",
    "flip_direction",
    "homography_matrix",
)


@TRANSFORMS.register_module()
class LoadImage:
    """The record with its image, its shapes and an identity homography."""

    def __call__(self, results: Record) -> Record:
        results.update(as_loaded(read_image(results["img_path"])))
        return results


@TRANSFORMS.register_module()
class CopySharedImage:
    """The record with an image that may be written to: a copy only where it is still shared.

    Goes before transforms that write in place, such as mmdet's RandomErasing. A shared array is
    read-only (see TwoViews), and so is every NumPy view of it, e.g. a flipped one.
    """

    def __call__(self, results: Record) -> Record:
        if not results["img"].flags.writeable:
            results["img"] = results["img"].copy()
        return results


@TRANSFORMS.register_module()
class PackView(PackDetInputs):  # type: ignore[misc]
    """mmdet's packed item with the homography in its metainfo, under `name` if there is one.

    Boxes may have scores (`gt_scores`): those of offline labels.
    """

    mapping_table: ClassVar[dict[str, str]] = {**PackDetInputs.mapping_table, "gt_scores": "scores"}

    def __init__(self, name: str | None = None, meta_keys: Sequence[str] = META_KEYS) -> None:
        super().__init__(meta_keys=tuple(meta_keys))
        self.name = name

    def transform(self, results: Record) -> Record:
        """The packed item, or `{name: item}`."""
        # The planes are the item's own, where a view of the shared image could be written to.
        packed: Record = super().transform({**results, "img": planes_of(results["img"])})
        return packed if self.name is None else {self.name: packed}


@TRANSFORMS.register_module()
class PlaceOfflineLabels:
    """The record with its offline labels as `gt_bboxes`, `gt_bboxes_labels` and `gt_scores` of the view.

    The record brings `offline_labels`: `boxes` (n, 4) xyxy px of the original image, `classes` (n,) and
    `scores` (n,). Comes last, so that all that the boxes ever see is the view's homography: mmdet's
    transforms know of no scores, and would drop some boxes of the other three. A box also goes if less than
    `min_visible` of its area is in view.
    """

    def __init__(self, min_visible: float = 0.0) -> None:
        self.min_visible = min_visible

    def __call__(self, results: Record) -> Record:
        labels = labels_in_view(results, self.min_visible)
        kept = labels.valid[0]
        results["gt_bboxes"] = labels.boxes[0, kept]
        results["gt_bboxes_labels"] = labels.classes[0, kept]
        results["gt_scores"] = labels.scores[0, kept]
        return results


@TRANSFORMS.register_module()
class TwoViews:
    """`dict(weak=..., strong=...)`: two pipelines run on one decoded image.

    The pixels are shared, not copied, and locked: a transform that writes in place raises
    ValueError instead of spoiling the other view. Boxes and other small arrays are copied. Raises
    UserError at construction for a transform that is not known to keep the homography true.
    """

    def __init__(self, weak: Sequence[Record], strong: Sequence[Record]) -> None:
        self.pipelines = {"weak": Compose(weak), "strong": Compose(strong)}
        for name, pipeline in self.pipelines.items():
            check_homography(name, pipeline)

    def __call__(self, results: Record) -> Record | None:
        results["img"].flags.writeable = False
        views = {name: run(_branch(results)) for name, run in self.pipelines.items()}
        return None if any(view is None for view in views.values()) else views


def _branch(results: Record) -> Record:
    """A record that shares the image with `results` and owns everything that transforms change."""
    return {key: value if key == "img" else _owned(value) for key, value in results.items()}


def _owned(value: Any) -> Any:
    """A copy of an array, a tensor or boxes; other values are replaced, never changed, in mmdet."""
    if isinstance(value, np.ndarray):
        return value.copy()
    return value.clone() if hasattr(value, "clone") else value


def collate_views(items: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """`{view: {"inputs": ImageStack, "data_samples": [...]}}` over the views that the items hold.

    An item is `dict(labeled=P)`, `dict(weak=P, strong=P)` or, with offline labels, `dict(strong=P)`; a view
    that no item holds is absent. Labeled and strong stacks are of one size: the student sees one batch.
    """
    packed = {name: [item[name] for item in items if name in item] for name in VIEWS}
    sizes = {name: [tuple(one["inputs"].shape[1:]) for one in views] for name, views in packed.items()}
    student = sizes["labeled"] + sizes["strong"]
    batch: dict[str, dict[str, Any]] = {}
    for name, views in packed.items():
        if not views:
            continue
        size = common_size(sizes["weak"] if name == "weak" else student)
        batch[name] = {key: [one[key] for one in views] for key in views[0]}
        batch[name]["inputs"] = ImageStack.of(
            batch[name]["inputs"], size, in_worker=get_worker_info() is not None
        )
    return batch


FUNCTIONS.register_module(module=collate_views)
