"""The views of the methods as mmdet pipelines: labeled, weak, strong, and the one for testing.

Plain functions that return lists of dicts, for use in configs::

    _base_ = []  # above the import: without it mmengine takes the file for a lazy config
    from ssod.data.pipelines import labeled, two_views

Spaces and order are those of mmdet's `configs/_base_/datasets/semi_coco_detection.py`, which is
Soft Teacher's. A view starts from a decoded image with an identity homography.
"""

from collections.abc import Sequence
from typing import Any

from ssod.data.steps import (
    Pipeline,
    Scale,
    Size,
    draw_one,
    large_scale_jitter,
    load_for,
    resize_to,
    stac_geometry,
)
from ssod.errors import UserError

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
# STAC's nine colour operations at strengths of 1 to 9 in 10, drawn without steps.
_FACTOR = dict(min_mag=0.3, max_mag=1.7)
STAC_COLOR_OPS: tuple[str | dict[str, Any], ...] = (
    *("ColorTransform", "AutoContrast", "Equalize"),
    dict(type="Solarize", min_mag=26.0, max_mag=231.0),
    *(dict(type=name, **_FACTOR) for name in ("Color", "Contrast", "Brightness", "Sharpness")),
    dict(type="Posterize", min_mag=0.1, max_mag=4.0),
)
SPACES = ("soft_teacher", "stac")
STUDENT, TEACHER = 0, 1  # whose views share a scale with same_scale=True


def labeled(
    scale: Scale = COCO_SCALE,
    flip_prob: float = 0.5,
    color: bool = True,
    geometric: bool = False,
    erase: bool = False,
    jitter: tuple[float, float] | None = None,
    extra: Sequence[dict[str, Any]] = (),
    same_scale: bool = False,
    reduced_decoding: bool = False,
) -> Pipeline:
    """The pipeline of a labeled image: `dict(labeled=P)` with its boxes; options as in `strong`.

    reduced_decoding: as in `two_views`.
    """
    stream = STUDENT if same_scale else None
    view = _augment(scale, flip_prob, color, geometric, erase, jitter=jitter, extra=extra, stream=stream)
    load, views = load_for({"labeled": view}, reduced_decoding)
    return [
        load,
        dict(type="LoadAnnotations", with_bbox=True),
        *views["labeled"],
        # keep_empty=True (mmdet's default) would swap an image that lost its boxes for a random
        # other one: the sampler's choice of image would not hold, nor a resumed run repeat it.
        dict(type="FilterAnnotations", min_gt_bbox_wh=(1e-2, 1e-2), keep_empty=False),
        dict(type="PackView", name="labeled"),
    ]


def weak(scale: Scale = COCO_SCALE, flip_prob: float = 0.5, same_scale: bool = False) -> Pipeline:
    """The teacher's view: resize and flip; same_scale: as in `strong`, one for the weak views of a batch."""
    return [*_augment(scale, flip_prob, stream=TEACHER if same_scale else None), dict(type="PackView")]


def strong(
    scale: Scale = COCO_SCALE,
    flip_prob: float = 0.5,
    color: bool = True,
    geometric: bool = True,
    erase: bool = True,
    space: str = "soft_teacher",
    jitter: tuple[float, float] | None = None,
    extra: Sequence[dict[str, Any]] = (),
    same_scale: bool = False,
) -> Pipeline:
    """The student's view: its own resize and flip, a colour and a geometric op, erased patches.

    space: where the two are drawn from. `soft_teacher` is mmdet's. `stac` is STAC's (arXiv 2005.04757, its
    released code): the same nine colour operations, shy of their extremes; and in half of the views a shift
    in x or y of up to 10 %, a turn or a shear in x and y of up to 30 degrees, about the image's centre, in
    the other half the same within one box of the offline labels only, of up to 5 % and 10 degrees. Where
    labels are made online there is no box yet, and that half is not moved.
    jitter: large-scale jitter, (0.1, 2.0) for instance, instead of a drawn scale: the image is resized to
    that share of `scale`, one size, and then cropped or padded to it.
    extra: albumentations' transforms as dicts, run before patches are erased; boxes follow, see
    `TrackedAlbumentations`.
    same_scale: one scale is drawn for all labeled and strong views of a batch, not one for each, which leaves
    a third of the padding; each scale comes as often as without. Not what is published: those differ.

    Raises UserError for an unknown space, for jitter without one fixed size, and for same_scale where no
    scale is drawn.
    """
    stream = STUDENT if same_scale else None
    steps = _augment(scale, flip_prob, color, geometric, erase, space, jitter, extra, stream)
    return [*steps, dict(type="PackView")]


def two_views(weak: Pipeline, strong: Pipeline, reduced_decoding: bool = False) -> Pipeline:
    """The pipeline of an unlabeled image, decoded once: `dict(weak=P, strong=P)`, no annotation.

    reduced_decoding: a JPEG that is at least twice as large as both views is decoded at a half, a quarter or
    an eighth of its size, for a part of the time. Geometry stays, colours of single pixels change (fine
    texture is averaged, where a resize alone samples it), and so does the order of draws; see docs/loader.md.
    Raises UserError for it where a view does not begin with a resize.
    """
    load, views = load_for({"weak": weak, "strong": strong}, reduced_decoding)
    return [load, dict(type="TwoViews", **views)]


def offline(two_views: Pipeline, min_visible: float = 0.0) -> Pipeline:
    """The student's half of a `two_views` pipeline, for images with boxes from a file: `dict(strong=P)`.

    No weak view is made. The boxes follow the view's homography; those of which less than `min_visible` of
    the area is still in view are dropped.
    """
    load, views = two_views
    if "resizes" in load:
        load = {**load, "resizes": {"strong": load["resizes"]["strong"]}}
    return [
        load,
        *views["strong"][:-1],
        dict(type="PlaceOfflineLabels", min_visible=min_visible),
        dict(type="PackView", name="strong"),
    ]


def pseudo_labeled(unlabeled: dict[str, Any]) -> dict[str, Any]:
    """The config of unlabeled images in two views, turned into one of images with boxes from a file."""
    return dict(type="PseudoLabeled", dataset={**unlabeled, "pipeline": offline(unlabeled["pipeline"])})


def test(scale: Size | None = COCO_TEST_SCALE, reduced_decoding: bool = False) -> Pipeline:
    """The pipeline of validation and testing: mmdet's ordinary item, ready for `pseudo_collate`.

    reduced_decoding: as in `two_views`; for testing as one trained.
    """
    load, views = load_for({"test": resize_to(scale)}, reduced_decoding)
    return [
        load,
        *views["test"],
        dict(type="LoadAnnotations", with_bbox=True),
        dict(type="PackView"),
    ]


def _augment(
    scale: Scale,
    flip_prob: float,
    color: bool = False,
    geometric: bool = False,
    erase: bool = False,
    space: str = "soft_teacher",
    jitter: tuple[float, float] | None = None,
    extra: Sequence[dict[str, Any]] = (),
    stream: int | None = None,
) -> Pipeline:
    """Resize, flip, then what is asked for, in mmdet's order."""
    if space not in SPACES:
        raise UserError(f"strong(space={space!r}): no such space; there are {', '.join(SPACES)}")
    stac = space == "stac"
    ops = [draw_one(STAC_COLOR_OPS if stac else COLOR_OPS)] * color
    ops += [stac_geometry() if stac else draw_one(GEOMETRIC_OPS)] * geometric
    pipeline = resize_to(scale) if jitter is None else large_scale_jitter(scale, jitter)
    if stream is not None:
        if jitter is not None or not pipeline or pipeline[0]["type"] == "Resize":
            raise UserError(
                f"same_scale=True with scale={scale}, jitter={jitter}: no scale is drawn that a batch could "
                "share; leave it out, or give a range such as scale=[(1333, 400), (1333, 1200)]"
            )
        pipeline = [dict(type="BatchResize", resize=pipeline[0], stream=stream)]
    pipeline.append(dict(type="RandomFlip", prob=flip_prob))
    if ops:
        pipeline.append(dict(type="RandomOrder", transforms=ops))
    if extra:
        pipeline.append(dict(type="TrackedAlbumentations", transforms=list(extra)))
    if erase:
        # RandomErasing writes into the array it gets, which both views may share.
        pipeline.append(dict(type="CopySharedImage"))
        pipeline.append(dict(type="RandomErasing", n_patches=(1, 5), ratio=(0, 0.2)))
    return pipeline
