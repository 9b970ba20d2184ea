"""The steps that views are made of, as config dicts: loading, resizing, jitter, drawn operations."""

from collections.abc import Sequence
from typing import Any

from ssod.errors import UserError

Pipeline = list[dict[str, Any]]
Size = tuple[int, int]
# One size is fixed, two span a range that is drawn from, more are a choice, None keeps the image's.
Scale = Size | list[Size] | tuple[Size, ...] | None

RESIZES = ("Resize", "RandomResize", "RandomChoiceResize", "BatchResize")
SCALES = frozenset({"type", "scale", "scales", "ratio_range", "resize_type", "view"})

JITTER_FILL = (128, 128, 128)  # grey, as behind turned images


def load_for(views: dict[str, Pipeline], reduced: bool) -> tuple[dict[str, Any], dict[str, Pipeline]]:
    """The step that loads an image for some views, and the views, with a resize that fits that step."""
    if not reduced:
        return dict(type="LoadImage"), views
    for name, view in views.items():
        if not view or view[0].get("type") not in RESIZES:
            raise UserError(
                f"reduced_decoding=True: the {name} view does not begin with a resize, so no image may be "
                "decoded smaller than it is: give the view a scale, or leave the option out"
            )
        other = {key: value for key, value in _innermost(view[0]).items() if key not in SCALES}
        if other != dict(keep_ratio=True):
            raise UserError(
                f"reduced_decoding=True: the resize of the {name} view has {other}; only a scale and "
                "keep_ratio=True go with it"
            )
    load = dict(type="LoadReduced", resizes={name: view[0] for name, view in views.items()})
    return load, {name: [dict(type="ResizeDrawn", view=name), *view[1:]] for name, view in views.items()}


def _innermost(step: dict[str, Any]) -> dict[str, Any]:
    """The resize itself, where one scale is drawn for a batch."""
    return _innermost(step["resize"]) if "resize" in step else step


def draw_one(ops: Sequence[str | dict[str, Any]]) -> dict[str, Any]:
    """One operation of the space, drawn uniformly, of random strength."""
    space = [[dict(type=op) if isinstance(op, str) else dict(op)] for op in ops]
    return dict(type="RandAugment", aug_space=space, aug_num=1)


def stac_geometry() -> dict[str, Any]:
    """An affine motion of the whole image or of what is inside one box, as likely."""
    whole = dict(type="TrackedAlbumentations", transforms=_affine(0.1, 30))
    inside = dict(type="BoxAffine", transforms=_affine(0.05, 10))
    return dict(type="RandomChoice", transforms=[[whole], [inside]])


def _affine(share: float, degrees: float) -> list[dict[str, Any]]:
    """One of STAC's four motions about the centre: shifts of up to `share` of a side, a turn, a shear."""
    sides, angles = (-share, share), (-degrees, degrees)
    motions: list[dict[str, Any]] = [
        dict(translate_percent=dict(x=sides, y=0.0)),
        dict(translate_percent=dict(x=0.0, y=sides)),
        dict(rotate=angles),
        dict(shear=dict(x=angles, y=angles)),
    ]
    return [
        dict(type="OneOf", p=1, transforms=[dict(type="Affine", fill=125, p=1, **one) for one in motions])
    ]


def large_scale_jitter(scale: Scale, ratios: tuple[float, float]) -> Pipeline:
    """Large-scale jitter: a share of a size is drawn, and the image cropped or padded to that size."""
    size = scale[0] if scale and len(scale) == 1 else scale
    if not size or not all(isinstance(side, int) for side in size) or not 0 < ratios[0] <= ratios[1]:
        raise UserError(
            f"jitter={ratios} with scale={scale}: large-scale jitter needs a range of factors and one size, "
            "such as jitter=(0.1, 2.0), scale=(1024, 1024)"
        )
    return [
        dict(type="RandomResize", scale=size, ratio_range=tuple(ratios), keep_ratio=True),
        # Otherwise an image that loses all boxes would be swapped for another one.
        dict(type="RandomCrop", crop_size=size, allow_negative_crop=True),
        dict(type="Pad", size=size, pad_val=dict(img=JITTER_FILL)),
    ]


def resize_to(scale: Scale) -> Pipeline:
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
