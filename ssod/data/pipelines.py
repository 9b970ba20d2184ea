"""The views of the methods as mmdet pipelines: labeled, weak, strong, and the one for testing.

Plain functions that return lists of dicts, for use in configs::

    _base_ = []  # above the import: without it mmengine takes the file for a lazy config
    from ssod.data.pipelines import labeled, two_views

Spaces and order are those of mmdet's `configs/_base_/datasets/semi_coco_detection.py`, which is
Soft Teacher's. A view starts from a decoded image with an identity homography.
"""

from typing import Any

Pipeline = list[dict[str, Any]]
Size = tuple[int, int]
# One size is fixed, two span a range that is drawn from, more are a choice, None keeps the image's.
Scale = Size | list[Size] | tuple[Size, ...] | None

COCO_SCALE: Scale = [(1333, 400), (1333, 1200)]
COCO_TEST_SCALE: Size = (1333, 800)

COLOR_OPS = (
    "ColorTransform",  # mmdet's base class: changes nothing, the identity of this space
    "AutoContrast",
    "Equalize",
    "Sharpness",
    "Posterize",
    "Solarize",
    "Color",
    "Contrast",
    "Brightness",
)
GEOMETRIC_OPS = ("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY")


def labeled(
    scale: Scale = COCO_SCALE,
    flip_prob: float = 0.5,
    color: bool = True,
    geometric: bool = False,
    erase: bool = False,
) -> Pipeline:
    """The pipeline of a labeled image: `dict(labeled=P)` with its boxes."""
    return [
        dict(type="LoadImage"),
        dict(type="LoadAnnotations", with_bbox=True),
        *_augment(scale, flip_prob, color, geometric, erase),
        # keep_empty=True (mmdet's default) would swap an image that lost its boxes for a random
        # other one: the sampler's choice of image would not hold, nor a resumed run repeat it.
        dict(type="FilterAnnotations", min_gt_bbox_wh=(1e-2, 1e-2), keep_empty=False),
        dict(type="PackView", name="labeled"),
    ]


def weak(scale: Scale = COCO_SCALE, flip_prob: float = 0.5) -> Pipeline:
    """The teacher's view: resize and flip."""
    return [*_augment(scale, flip_prob), dict(type="PackView")]


def strong(
    scale: Scale = COCO_SCALE,
    flip_prob: float = 0.5,
    color: bool = True,
    geometric: bool = True,
    erase: bool = True,
) -> Pipeline:
    """The student's view: its own resize and flip, a colour and a geometric op, erased patches."""
    return [*_augment(scale, flip_prob, color, geometric, erase), dict(type="PackView")]


def two_views(weak: Pipeline, strong: Pipeline) -> Pipeline:
    """The pipeline of an unlabeled image, decoded once: `dict(weak=P, strong=P)`, no annotation."""
    return [dict(type="LoadImage"), dict(type="TwoViews", weak=weak, strong=strong)]


def offline(two_views: Pipeline, min_visible: float = 0.0) -> Pipeline:
    """The student's half of a `two_views` pipeline, for images with boxes from a file: `dict(strong=P)`.

    No weak view is made. The boxes follow the view's homography; those of which less than `min_visible` of
    the area is still in view are dropped.
    """
    load, views = two_views
    return [
        load,
        *views["strong"][:-1],
        dict(type="PlaceOfflineLabels", min_visible=min_visible),
        dict(type="PackView", name="strong"),
    ]


def pseudo_labeled(unlabeled: dict[str, Any]) -> dict[str, Any]:
    """The config of unlabeled images in two views, turned into one of images with boxes from a file."""
    return dict(type="PseudoLabeled", dataset={**unlabeled, "pipeline": offline(unlabeled["pipeline"])})


def test(scale: Size | None = COCO_TEST_SCALE) -> Pipeline:
    """The pipeline of validation and testing: mmdet's ordinary item, ready for `pseudo_collate`."""
    return [
        dict(type="LoadImage"),
        *_resize(scale),
        dict(type="LoadAnnotations", with_bbox=True),
        dict(type="PackView"),
    ]


def _augment(
    scale: Scale,
    flip_prob: float,
    color: bool = False,
    geometric: bool = False,
    erase: bool = False,
) -> Pipeline:
    """Resize, flip, then what is asked for, in mmdet's order."""
    ops = [_one_of(COLOR_OPS)] * color + [_one_of(GEOMETRIC_OPS)] * geometric
    pipeline = [*_resize(scale), dict(type="RandomFlip", prob=flip_prob)]
    if ops:
        pipeline.append(dict(type="RandomOrder", transforms=ops))
    if erase:
        # RandomErasing writes into the array it gets, which both views may share.
        pipeline.append(dict(type="CopySharedImage"))
        pipeline.append(dict(type="RandomErasing", n_patches=(1, 5), ratio=(0, 0.2)))
    return pipeline


def _one_of(names: tuple[str, ...]) -> dict[str, Any]:
    """One operation of the space, drawn uniformly, of random strength."""
    return dict(type="RandAugment", aug_space=[[dict(type=name)] for name in names], aug_num=1)


def _resize(scale: Scale) -> Pipeline:
    """The resize that the kind of `scale` asks for; the aspect ratio is kept."""
    if scale is None:
        return []
    sizes = [tuple(size) for size in scale if not isinstance(size, int)]
    if not sizes:
        return [dict(type="Resize", scale=tuple(scale), keep_ratio=True)]
    if len(sizes) == 1:
        return [dict(type="Resize", scale=sizes[0], keep_ratio=True)]
    if len(sizes) == 2:
        return [dict(type="RandomResize", scale=sizes, keep_ratio=True)]
    return [dict(type="RandomChoiceResize", scales=sizes, keep_ratio=True)]
