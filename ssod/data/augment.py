"""albumentations on a view, with the homography and the boxes following the pixels.

mmdet's `Albu` moves pixels and leaves `homography_matrix` as it was, so every pseudo box lands in
the wrong place without a word (HAZARDS.md, row 12). Here the motion is measured: a map whose pixels
hold their own coordinates goes through the same transforms as the image, and the homography is
fitted to where they arrive. Box and keypoint conventions of single transforms, which differ by up
to a pixel in albumentations 2.0, play no part.
"""

import os
import random
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from mmdet.structures.bbox import autocast_box_type

from ssod.errors import UserError
from ssod.registry import TRANSFORMS

Matrix = npt.NDArray[np.float64]
Points = npt.NDArray[np.float64]

# Dual transforms that are a homography. Any other one is refused, so a new release can't slip in.
HOMOGRAPHIES = frozenset(
    (
        *("Affine", "Perspective", "Rotate", "SafeRotate", "ShiftScaleRotate", "NoOp"),
        *("HorizontalFlip", "VerticalFlip", "Transpose", "RandomRotate90", "D4", "SquareSymmetry"),
        *("Resize", "LongestMaxSize", "SmallestMaxSize", "RandomScale"),
        *("Crop", "CenterCrop", "RandomCrop", "RandomCropFromBorders", "CropAndPad"),
        *("RandomResizedCrop", "RandomSizedCrop", "Pad", "PadIfNeeded"),
    )
)
# Dual transforms that hide pixels and move none.
DROPOUTS = frozenset(
    (
        *("CoarseDropout", "Erasing", "GridDropout", "PixelDropout", "XYMasking"),
        *("FrequencyMasking", "TimeMasking"),
    )
)

SAMPLES_PER_SIDE = 32  # of the grid of pixels that the fit looks at
NARROW = 32  # pixels; of a view that has fewer in one direction the grid may find too little
MAX_RESIDUAL = 0.5  # pixels of the view
MIN_EXPLAINED = 0.95  # share of the samples; a resize repeats the last pixel along a crop's edge
EDGE = 0.02  # share of a side that is not looked at, for the same reason


@TRANSFORMS.register_module()
class TrackedAlbumentations:
    """The view after the transforms: image, boxes and `homography_matrix` agree.

    Args:
        transforms: dicts as in albumentations, `dict(type="Affine", rotate=(-20, 20), p=0.5)`;
            groups (`OneOf`, `SomeOf`, `Sequential`, ...) nest them under `transforms`.

    Draws from NumPy's global generator like mmdet's own transforms, so a seed repeats it. Colours
    arrive in RGB order, as albumentations expects. Boxes are projected and clipped; those that end
    thin are left for mmdet's `FilterAnnotations`. A view of fewer than NARROW pixels in one direction,
    whose motion can't be measured, stays as it is. Raises UserError at construction for an unknown
    transform, wrong arguments or a motion that no homography describes, and when used, for a motion
    that turned out not to be one.
    """

    def __init__(self, transforms: Sequence[Mapping[str, Any]]) -> None:
        # It asks PyPI for its newest version at import; a training run must not depend on that.
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
        import albumentations

        built = [_build(albumentations, config) for config in transforms]
        self.compose = albumentations.Compose(built)
        leaves = list(_leaves(built))
        self.moves = any(type(leaf).__name__ in HOMOGRAPHIES for leaf in leaves)
        for leaf in leaves:
            # The coordinates travel as a mask; only linear interpolation keeps a linear ramp exact.
            if hasattr(leaf, "mask_interpolation"):
                leaf.mask_interpolation = cv2.INTER_LINEAR

    @autocast_box_type()  # type: ignore[misc]
    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        size = results["img"].shape[:2]
        output = self.draw(results["img"], **({"mask": coordinate_map(*size)} if self.moves else {}))
        try:
            motion = _motion(output["mask"], size) if self.moves else None
        except UserError:
            if min(size) >= NARROW:
                raise
            return results
        results["img"] = output["image"]
        if self.moves:
            self._follow(results, motion)
        return results

    def draw(self, image: npt.NDArray[np.uint8], **targets: Any) -> dict[str, Any]:
        """What one draw of the transforms makes of a BGR image (H, W, 3) and of other targets."""
        seed = int(np.random.randint(2**31))
        # One stream for all: Compose.set_random_seed gives each transform the same seed instead,
        # so that transforms of equal p always act together.
        self.compose.set_random_state(np.random.default_rng(seed), random.Random(seed))
        _check_bytes("gets", image, "put it before what makes them so, such as PhotoMetricDistortion")
        output: dict[str, Any] = self.compose(image=cv2.cvtColor(image, cv2.COLOR_BGR2RGB), **targets)
        _check_bytes("makes", output["image"], "remove ToFloat, Normalize and their like")
        output["image"] = cv2.cvtColor(output["image"], cv2.COLOR_RGB2BGR)
        return output

    def _follow(self, results: dict[str, Any], motion: Matrix | None) -> None:
        """Composes the measured motion into the homography and moves the boxes along."""
        results["img_shape"] = results["img"].shape[:2]
        if motion is None:
            return
        before = results.get("homography_matrix")
        results["homography_matrix"] = motion @ (np.eye(3) if before is None else before)
        if results.get("gt_bboxes") is not None:
            results["gt_bboxes"].project_(motion.astype(np.float32))
            results["gt_bboxes"].clip_(results["img_shape"])


def _check_bytes(verb: str, image: npt.NDArray[Any], mend: str) -> None:
    """Raises UserError for an image that is not uint8: albumentations takes a float one for 0 to 1."""
    if image.dtype != np.uint8:
        raise UserError(f"TrackedAlbumentations {verb} an image of {image.dtype}, not uint8: {mend}")


def _motion(moved: npt.NDArray[Any], size: tuple[int, int]) -> Matrix | None:
    """The homography that a moved map of an image of `size` shows, None where nothing moved."""
    return None if np.array_equal(moved, coordinate_map(*size)) else fit_homography(moved, size)


def coordinate_map(height: int, width: int) -> npt.NDArray[np.float32]:
    """An image (H, W, 3) whose pixels hold the x and y of their own centres, and a one.

    The one tells an original pixel from the filling that a transform puts beside it.
    """
    grid = np.empty((height, width, 3), dtype=np.float32)
    grid[..., 0] = np.arange(width, dtype=np.float32) + 0.5
    grid[..., 1] = np.arange(height, dtype=np.float32)[:, None] + 0.5
    grid[..., 2] = 1
    return grid


def fit_homography(moved: npt.NDArray[Any], size: tuple[int, int]) -> Matrix:
    """The homography (3, 3) from the pixels of an image of `size` to those of the moved map.

    Affine wherever an affine motion explains it. Raises UserError if more than a few of the pixels
    that come from inside the image are over MAX_RESIDUAL away from where the homography puts them.
    """
    source, target = _correspondences(moved)
    # RANSAC, because a reflecting border repeats pixels at places where they don't belong.
    rough = None
    if len(source) >= 8:
        rough, _ = cv2.findHomography(source, target, cv2.RANSAC, MAX_RESIDUAL)
    if rough is None:
        raise UserError(
            "albumentations left too few pixels of the image to follow them: use milder crops, "
            "shifts or rotations"
        )
    motion = _refine(source, target, np.asarray(rough, dtype=np.float64))
    expected = project(_inverse(motion), target)
    inside = np.all((expected > 1) & (expected < np.array(size[::-1]) - 1), axis=1)
    error = np.linalg.norm(project(motion, source[inside]) - target[inside], axis=1)
    if not inside.any() or (error < MAX_RESIDUAL).mean() < MIN_EXPLAINED:
        raise UserError(
            "the albumentations transforms move pixels in a way that no homography describes (up "
            f"to {error.max(initial=0):.1f} px off): remove what bends the image"
        )
    return motion


def _correspondences(moved: npt.NDArray[Any]) -> tuple[Points, Points]:
    """Points (N, 2) of the original image and where they went, on a grid over the moved map."""
    rows, columns = (
        np.unique(np.linspace(EDGE * side, (1 - EDGE) * side - 1, SAMPLES_PER_SIDE).astype(int))
        for side in moved.shape[:2]
    )
    y, x = (axis.ravel() for axis in np.meshgrid(rows, columns, indexing="ij"))
    samples = moved[y, x].astype(np.float64)
    original = np.abs(samples[:, 2] - 1) < 1e-4
    target = np.stack((x, y), axis=1) + 0.5
    return samples[original, :2], target[original]


def _refine(source: Points, target: Points, rough: Matrix) -> Matrix:
    """The least-squares motion over the points that the rough one explains, affine if that fits."""
    good = np.linalg.norm(project(rough, source) - target, axis=1) < MAX_RESIDUAL
    source, target = source[good], target[good]
    homogeneous = np.column_stack((source, np.ones(len(source))))
    solution, *_ = np.linalg.lstsq(homogeneous, target, rcond=None)
    affine = np.vstack((solution.T, (0.0, 0.0, 1.0)))
    if np.abs(project(affine, source) - target).max() < 0.1:
        return affine
    refined, _ = cv2.findHomography(source, target, 0)
    return rough if refined is None else np.asarray(refined, dtype=np.float64)


def _inverse(matrix: Matrix) -> Matrix:
    """The inverse, of the type that went in."""
    return np.asarray(np.linalg.inv(matrix), dtype=np.float64)


def project(matrix: Matrix, points: Points) -> Points:
    """The points (N, 2) mapped by a homography (3, 3)."""
    mapped = np.column_stack((points, np.ones(len(points)))) @ matrix.T
    result: Points = mapped[:, :2] / mapped[:, 2:]
    return result


def _leaves(transforms: Sequence[Any]) -> Iterator[Any]:
    """The single transforms within groups of groups."""
    for transform in transforms:
        nested = getattr(transform, "transforms", None)
        if nested is None:
            yield transform
        else:
            yield from _leaves(nested)


def _build(albumentations: Any, config: Mapping[str, Any]) -> Any:
    """The albumentations object that a config dict names; raises UserError if it can't be used."""
    arguments = dict(config)
    name = str(arguments.pop("type", None))
    kind = getattr(albumentations, name, None)
    if not isinstance(kind, type) or not issubclass(
        kind, (albumentations.BasicTransform, albumentations.BaseCompose)
    ):
        raise UserError(
            f"albumentations {albumentations.__version__} has no transform {name!r}: check the "
            "`type` in TrackedAlbumentations(transforms=[...])"
        )
    if issubclass(kind, albumentations.BaseCompose):
        nested = arguments.get("transforms", [])
        arguments["transforms"] = [_build(albumentations, one) for one in nested]
    elif not issubclass(kind, albumentations.ImageOnlyTransform) and name not in (HOMOGRAPHIES | DROPOUTS):
        raise UserError(
            f"albumentations' {name} moves pixels in a way that no homography describes, or as boxes or "
            "masks say, which an unlabeled image has not, so pseudo boxes can't follow it: remove it; "
            f"{', '.join(sorted(HOMOGRAPHIES))} can be used"
        )
    try:
        with warnings.catch_warnings():
            # An unknown argument is only a warning there, and the option would do nothing.
            warnings.filterwarnings("error", message="Argument.*not valid for transform")
            built = kind(**arguments)
    except (TypeError, ValueError, UserWarning) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"wrong arguments for albumentations' {name}: {reason}") from None
    wanted = getattr(built, "targets_as_params", ())
    if wanted:
        raise UserError(f"albumentations' {name} needs {', '.join(wanted)} beside the image: remove it")
    return built
