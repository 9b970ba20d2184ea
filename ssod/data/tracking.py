"""Which transforms a view may have: those that keep its homography true. The others are refused by name.

Pseudo boxes follow the homography from the weak to the strong view, so a transform that moves pixels and
does not say so puts them in the wrong place without a word. What is known of mmdet's, mmcv's and our own
transforms stands in the lists below, each entry tested. One's own says it itself, as a class attribute::

    homography = "tracked"  # it moves pixels and composes its motion into results["homography_matrix"]
    homography = "still"    # it moves no pixel

A measurement alone could not stand in for that: a transform that acts now and then, or that changes colours,
too, can't be told from one that is right. But who says "tracked" and is measurably not, is found out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from ssod.data.augment import coordinate_map, fit_homography, project
from ssod.data.decode import as_loaded
from ssod.data.draws import seeded
from ssod.errors import UserError

HOUSES = ("mmdet", "mmcv", "mmengine", "ssod")  # whose transforms are listed here

COLORS = (
    *("ColorTransform", "AutoContrast", "Equalize", "Sharpness", "Posterize", "Solarize", "Color"),
    *("Contrast", "Brightness", "Invert", "SolarizeAdd", "PhotoMetricDistortion", "YOLOXHSVRandomAug"),
)


def _of(house: str, *names: str) -> tuple[str, ...]:
    """The full names of a house's transforms."""
    return tuple(f"{house}.{name}" for name in names)


# They move pixels and compose their motion into the homography.
TRACKED = frozenset(
    (
        *_of("mmdet", "Resize", "FixScaleResize", "FixShapeResize", "RandomFlip", "RandomCrop"),
        *_of("mmdet", "Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY"),
        *_of("ssod", "RandomFlip", "TranslateX", "TranslateY", "TrackedAlbumentations", "ResizeDrawn"),
    )
)
# They move no pixel: colours, hidden patches, a border at the right or below, bookkeeping.
STILL = frozenset(
    (
        *_of("mmdet", *COLORS, "CutOut", "RandomErasing", "Pad"),
        *_of("mmdet", "FilterAnnotations", "PackDetInputs", "LoadEmptyAnnotations"),
        *_of("mmcv", "RandomGrayscale", "Pad"),
        *_of("ssod", "AutoContrast", "Equalize", "Sharpness", "Posterize", "Solarize", "Color", "Contrast"),
        *_of("ssod", "Brightness", "BoxAffine", "LoadImage", "CopySharedImage", "PackView"),
        "ssod.PlaceOfflineLabels",
    )
)
# They do nothing but call others.
GROUPS = frozenset(
    (
        *_of("mmcv", "Compose", "RandomApply", "RandomChoice", "RandomResize", "RandomChoiceResize"),
        *_of("mmdet", "RandomOrder", "RandAugment", "AutoAugment", "ResizeShortestEdge"),
        *("mmengine.Compose", "ssod.BatchResize"),
    )
)
# What is often wanted and not tracked, and what does the same and is.
INSTEAD = {
    "mmdet.Albu": "TrackedAlbumentations, or strong(extra=[...])",
    "mmdet.MinIoURandomCrop": "RandomCrop",
    "mmdet.RandomCenterCropPad": "RandomCrop",
    "mmdet.RandomAffine": "TrackedAlbumentations with Affine",
    "mmdet.RandomShift": "TranslateX and TranslateY",
    "mmdet.Expand": "TrackedAlbumentations with CropAndPad",
    "mmcv.CenterCrop": "TrackedAlbumentations with CenterCrop",
    "mmcv.Resize": "mmdet.Resize",
    "mmcv.RandomFlip": "mmdet.RandomFlip",
}

DRAWS = 8  # of a transform of one's own, when it is measured
SIZE = (96, 128)  # height and width of the image that it is measured on
TOLERANCE = 1.0  # pixels


def check_homography(view: str, pipeline: Any) -> None:
    """Raises UserError, naming the transform, unless all of a view's transforms keep the homography true."""
    for transform in _single(pipeline):
        name = _name(transform)
        if name in TRACKED or name in STILL:
            continue
        claim = getattr(transform, "homography", None)
        if claim == "tracked":
            _check_claim(view, transform, name)
        elif claim != "still":
            raise UserError(_refusal(view, name))


def _refusal(view: str, name: str) -> str:
    """Why a transform can't be in a view, in one line."""
    if name.split(".")[0] in HOUSES:
        instead = INSTEAD.get(name)
        return (
            f"the {view} view has {name}, which is not known to keep homography_matrix: pseudo boxes would "
            f"land in the wrong place; {f'use {instead}' if instead else 'remove it'}"
        )
    return (
        f"the {view} view has {name}, which does not say whether it moves pixels: give it an attribute "
        "homography = 'tracked' (it updates results['homography_matrix']) or 'still' (it moves none)"
    )


def _name(transform: Any) -> str:
    """The house and the class of a transform, `mmdet.Resize`; the full name of one's own."""
    kind = transform if hasattr(transform, "__name__") else type(transform)  # a function or an object
    house = str(kind.__module__).split(".")[0]
    return f"{house if house in HOUSES else kind.__module__}.{kind.__name__}"


def _single(transform: Any) -> Iterator[Any]:
    """The transforms that a pipeline consists of, within groups of groups."""
    if _name(transform) not in GROUPS:
        yield transform
        return
    for value in vars(transform).values():
        for one in _listed(value):
            yield from _single(one)


def _listed(value: Any) -> Iterable[Any]:
    """The transforms that a group keeps under one of its attributes; none for an option of another kind."""
    if isinstance(value, (list, tuple)):
        return [one for each in value for one in _listed(each)]
    return [value] if callable(value) else []


def _check_claim(view: str, transform: Any, name: str) -> None:
    """Raises UserError where a transform says it tracks and its homography says otherwise."""
    points = np.array([[x, y] for x in (32.0, 96.0) for y in (24.0, 72.0)])
    for number in range(DRAWS):
        record = as_loaded(coordinate_map(*SIZE), SIZE)
        try:
            with seeded((number,)):
                result = transform(record)
            motion = fit_homography(result["img"], SIZE)
        except Exception:  # it wants more than pixels, or changes their values, too: nothing is measured
            continue
        said = np.asarray(result["homography_matrix"], dtype=np.float64)
        error = np.linalg.norm(project(motion, points) - project(said, points), axis=1).max()
        if error > TOLERANCE:
            raise UserError(
                f"the {view} view has {name}, which says that it tracks the homography, but moves pixels "
                f"{error:.1f} px away from where homography_matrix says: compose its motion into "
                "results['homography_matrix']"
            )
