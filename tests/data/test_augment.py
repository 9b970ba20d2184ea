"""albumentations with the homography tracked, against the motion of pixels."""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from mmengine.dataset import Compose

from ssod.data.steps import stac_geometry
from ssod.errors import UserError
from ssod.registry import TRANSFORMS

pytestmark = pytest.mark.usefixtures("registered")

AFFINE = dict(type="Affine", rotate=(-30, 30), scale=(0.7, 1.3), shear=(-10, 10), p=1)
MOVING: list[dict[str, Any]] = [
    AFFINE,
    dict(type="Rotate", border_mode=cv2.BORDER_REFLECT_101),
    dict(type="SafeRotate"),
    dict(type="HorizontalFlip"),
    dict(type="VerticalFlip"),
    dict(type="Transpose"),
    dict(type="RandomRotate90"),
    dict(type="D4"),
    dict(type="Perspective", scale=0.15),
    dict(type="Perspective", scale=0.15, fit_output=True),
    dict(type="Resize", height=333, width=700),
    dict(type="LongestMaxSize", max_size=300),
    dict(type="SmallestMaxSize", max_size=1000),
    dict(type="RandomScale"),
    dict(type="Crop", x_min=10, y_min=20, x_max=450, y_max=330),
    dict(type="CenterCrop", height=300, width=400),
    dict(type="RandomResizedCrop", size=(400, 600), scale=(0.4, 1.0)),
    dict(type="PadIfNeeded", min_height=500, min_width=700),
    dict(type="CropAndPad", percent=(-0.1, 0.1)),
]


def tracked(*transforms: Any) -> Any:
    return Compose([dict(type="TrackedAlbumentations", transforms=list(transforms))])


def record(image: np.ndarray) -> dict[str, Any]:
    return dict(img=image, img_shape=image.shape[:2], homography_matrix=np.eye(3))


def noise(height: int = 160, width: int = 192) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("config", MOVING, ids=lambda config: config["type"])
def test_homography_follows_the_pixels(config: Any, motion_error: Callable[..., float]) -> None:
    error = motion_error(tracked({**config, "p": 1}))
    # A perspective moves a round spot's centre of mass off its centre: that is the ruler's error.
    limit = 0.4 if config["type"] == "Perspective" else 0.2
    assert error < limit, f"{config['type']}: {error:.3f} px"


def test_large_images(motion_error: Callable[..., float]) -> None:
    error = motion_error(tracked(AFFINE), size=(800, 1333), seeds=range(2))
    assert error < 0.2, f"{error:.3f} px"


def test_after_a_resize_and_in_groups_the_whole_motion_is_tracked(
    motion_error: Callable[..., float],
) -> None:
    group = dict(type="OneOf", transforms=[dict(type="Transpose", p=1), {**AFFINE}], p=1)
    both = dict(type="Sequential", transforms=[group, dict(type="HorizontalFlip", p=0.5)], p=1)
    ours = dict(type="TrackedAlbumentations", transforms=[both])
    flip = dict(type="RandomFlip", prob=0.5)
    run = Compose([dict(type="Resize", scale=(800, 800), keep_ratio=True), flip, ours])
    assert motion_error(run) < 0.2


def test_boxes_follow(motion_error: Callable[..., float]) -> None:
    assert motion_error(tracked(AFFINE, dict(type="HorizontalFlip", p=0.5)), box=True) < 0.2


def test_the_wrapper_of_mmdet_does_not_follow(motion_error: Callable[..., float]) -> None:
    """HAZARDS.md row 12: the fault of the base that this module is for."""
    flip = dict(type="HorizontalFlip", p=1)
    albu = Compose([dict(type="Albu", transforms=[flip], keymap=dict(img="image"))])

    def image_only(results: dict[str, Any]) -> dict[str, Any]:
        return {**results, **albu(dict(img=results["img"]))}

    assert motion_error(image_only) > 50
    assert motion_error(tracked(flip)) < 0.2


@pytest.mark.parametrize(
    "name",
    ["ElasticTransform", "GridDistortion", "OpticalDistortion", "ThinPlateSpline",
     "PiecewiseAffine", "MaskDropout", "RandomGridShuffle", "Morphological", "Lambda"],
)  # fmt: skip
def test_what_is_no_homography_is_refused_by_name(name: str) -> None:
    with pytest.raises(UserError, match=f"{name} moves pixels in a way that no homography"):
        tracked(dict(type="OneOf", transforms=[dict(type=name)]))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (dict(type="Rotat"), "has no transform 'Rotat'"),
        (dict(p=1), "has no transform 'None'"),
        (dict(type="BboxParams", format="coco"), "has no transform 'BboxParams'"),
        (dict(type="Rotate", degrees=3), "wrong arguments for albumentations' Rotate: .*degrees"),
        (dict(type="Resize"), "wrong arguments for albumentations' Resize"),
        (dict(type="FDA"), "albumentations' FDA needs fda_metadata beside the image: remove it"),
        (dict(type="Rotate", p=7), "wrong arguments for albumentations' Rotate"),
    ],
)
def test_wrong_configs(config: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        tracked(config)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("kind", "image", "said"),
    [
        ("Blur", np.full((40, 50, 3), 99.0, np.float32), "gets an image of float32, not uint8"),
        ("ToFloat", np.full((40, 50, 3), 99, np.uint8), "makes an image of float32, not uint8"),
    ],
)
def test_floats_are_refused(kind: str, image: Any, said: str) -> None:
    """albumentations takes them for numbers from 0 to 1, and makes a white image of those from 0 to 255."""
    with pytest.raises(UserError, match=said):
        tracked(dict(type=kind, p=1))(dict(img=image))


def test_a_bent_image_is_found_out() -> None:
    from ssod.data.augment import coordinate_map, fit_homography

    bent = coordinate_map(200, 300)
    bent[..., 0] += 6 * np.sin(np.arange(200, dtype=np.float32) / 15)[:, None]
    with pytest.raises(UserError, match="no homography describes"):
        fit_homography(bent, (200, 300))
    with pytest.raises(UserError, match="too few pixels"):
        fit_homography(np.zeros((200, 300, 3), np.float32), (200, 300))


@pytest.mark.parametrize("size", [(10, 1333), (1333, 10), (3, 1333), (1, 1)])
def test_a_narrow_view_that_can_not_be_followed_stays_as_it_is(size: tuple[int, int]) -> None:
    """STAC's motions of it are followed or not made; in an ordinary one they must be followed."""
    from ssod.data.draws import seeded

    moves = TRANSFORMS.build(stac_geometry()["transforms"][0][0])
    image, stayed = noise(*size), 0
    for number in range(40):
        with seeded((number,)):
            moved = moves(record(image.copy()))
        if np.array_equal(moved["homography_matrix"], np.eye(3)):
            assert np.array_equal(moved["img"], image)
            stayed += 1
    assert stayed > 0
    away = tracked(dict(type="Affine", translate_percent=dict(x=1.0, y=1.0), p=1))
    assert np.array_equal(away(record(image.copy()))["img"], image)
    with pytest.raises(UserError, match="too few pixels"):
        away(record(noise(32, 1333)))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("HorizontalFlip", [[-1, 0, 192], [0, 1, 0], [0, 0, 1]]),
        ("VerticalFlip", [[1, 0, 0], [0, -1, 160], [0, 0, 1]]),
        ("Transpose", [[0, 1, 0], [1, 0, 0], [0, 0, 1]]),
        ("NoOp", np.eye(3)),
        ("GridDropout", np.eye(3)),
        ("CoarseDropout", np.eye(3)),
        ("GaussianBlur", np.eye(3)),
    ],
)
def test_closed_forms(name: str, expected: Any) -> None:
    result = tracked(dict(type=name, p=1))(record(noise()))
    np.testing.assert_allclose(result["homography_matrix"], expected, atol=1e-6)
    assert result["img_shape"] == result["img"].shape[:2] and result["img"].flags.c_contiguous


def test_colours_arrive_in_rgb_order_and_the_input_stays() -> None:
    image = np.full((8, 8, 3), 100, np.uint8)
    image.flags.writeable = False
    shift = dict(type="RGBShift", r_shift_limit=(50, 50), g_shift_limit=0, b_shift_limit=0, p=1)
    result = tracked(shift)(record(image))["img"]
    assert result[0, 0].tolist() == [100, 100, 150] and image.max() == 100


def test_a_seed_repeats_the_draw_and_transforms_draw_apart() -> None:
    flips = tracked(dict(type="HorizontalFlip", p=0.5), dict(type="VerticalFlip", p=0.5))

    def draw(seed: int) -> tuple[float, float]:
        np.random.seed(seed)
        matrix = flips(record(noise(40, 50)))["homography_matrix"]
        return round(matrix[0, 0]), round(matrix[1, 1])

    drawn = [draw(seed) for seed in range(20)]
    assert drawn == [draw(seed) for seed in range(20)]
    assert set(drawn) == {(1, 1), (1, -1), (-1, 1), (-1, -1)}
