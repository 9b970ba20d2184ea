"""The fast pixel operations, against mmdet's own on the same draws: equal bits."""

import importlib
from typing import Any

import cv2
import numpy as np
import pytest
from mmdet.structures.bbox import HorizontalBoxes

from ssod.registry import TRANSFORMS

pytestmark = pytest.mark.usefixtures("registered")

POINTWISE = (
    "Brightness",
    "Solarize",
    "Posterize",
    "Contrast",
    "Color",
    "Sharpness",
    "AutoContrast",
    "Equalize",
)
MOVING = ("TranslateX", "TranslateY", "RandomFlip")


def peer(name: str) -> Any:
    return getattr(importlib.import_module("mmdet.datasets.transforms"), name)


def photo(kind: str) -> np.ndarray:
    """A smooth scene with noise; of one value; of two; or grey. (61, 83, 3)."""
    rng = np.random.default_rng(5)
    down, right = np.mgrid[:61, :83]
    scene = np.stack([60 + right, 20 + 2 * down, 200 - right - down], -1) + rng.normal(0, 12, (61, 83, 3))
    image = np.clip(scene, 0, 255).astype(np.uint8)
    if kind == "flat":
        image[:] = (7, 100, 250)
    if kind == "two values":
        image = np.where(image > 120, 200, 30).astype(np.uint8)
    if kind == "grey":
        image[:] = image[..., :1]
    return image


def record(image: np.ndarray) -> dict[str, Any]:
    boxes = HorizontalBoxes([[5.0, 6, 30, 40], [50, 10, 80, 60]])
    image = image.copy()
    image.flags.writeable = False
    return dict(img=image, img_shape=image.shape[:2], homography_matrix=np.eye(3), gt_bboxes=boxes)


def both(name: str, image: np.ndarray, seed: int, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """What ours and mmdet's make of the image with the same draws."""
    results = []
    for kind in (TRANSFORMS.get(name), peer(name)):
        assert kind is not None
        np.random.seed(seed)
        results.append(kind(**options)(record(image)))
    return results[0], results[1]


@pytest.mark.parametrize("kind", ["scene", "flat", "two values", "grey"])
@pytest.mark.parametrize("name", POINTWISE)
def test_colours_equal_mmdets(name: str, kind: str) -> None:
    assert TRANSFORMS.get(name) is not peer(name)
    for level in range(11):
        ours, theirs = both(name, photo(kind), seed=level, level=level)
        np.testing.assert_array_equal(ours["img"], theirs["img"], err_msg=f"{name} at level {level}")
        assert ours["img"].dtype == np.uint8 and ours["img"].flags.c_contiguous


@pytest.mark.parametrize("name", ["Brightness", "Solarize", "Contrast", "Color", "Sharpness", *MOVING])
def test_images_of_floats_go_the_same_way_as_in_mmdet(name: str) -> None:
    """PhotoMetricDistortion leaves such images; mmdet's other operations don't take them."""
    options = dict(prob=1.0) if name == "RandomFlip" else dict(level=3)
    ours, theirs = both(name, photo("scene").astype(np.float32) / 2, 0, **options)
    np.testing.assert_array_equal(ours["img"], theirs["img"])
    assert ours["img"].dtype == np.float32


@pytest.mark.parametrize("name", MOVING)
def test_motions_equal_mmdets(name: str) -> None:
    options: dict[str, Any] = (
        dict(prob=0.8, direction=["horizontal", "vertical", "diagonal"])
        if name == "RandomFlip"
        else dict(max_mag=1.0)
    )
    seen = set()
    for seed in range(30):
        ours, theirs = both(name, photo("scene"), seed, **options)
        np.testing.assert_array_equal(ours["img"], theirs["img"])
        np.testing.assert_array_equal(ours["homography_matrix"], theirs["homography_matrix"])
        assert ours["gt_bboxes"].tensor.equal(theirs["gt_bboxes"].tensor)
        seen.add(ours["homography_matrix"].tobytes())
    assert len(seen) >= 4 and ours["img"].flags.c_contiguous


def test_a_cut_view_of_an_image_is_taken_too() -> None:
    """A crop is a look at a part of a larger array, as mmdet's RandomCrop leaves it."""
    part = photo("scene")[10:50, 3:60]
    for name in (*POINTWISE, *MOVING):
        options = dict(prob=1.0) if name == "RandomFlip" else {}
        ours, theirs = (kind(**options)(dict(record(part), img=part)) for kind in seeded_pair(name))
        np.testing.assert_array_equal(ours["img"], theirs["img"])


def seeded_pair(name: str) -> Any:
    for kind in (TRANSFORMS.get(name), peer(name)):
        np.random.seed(4)
        yield kind


@pytest.mark.parametrize(("right", "down"), [(0, 0), (3, -2), (-83, 0), (0, 61), (200, 5)])
def test_a_shift_by_whole_pixels(right: int, down: int) -> None:
    from ssod.data.pixels import shift

    image = photo("scene")
    matrix = np.array([[1, 0, right], [0, 1, down]], dtype=np.float32)
    expected = cv2.warpAffine(image, matrix, (83, 61), borderValue=(128, 128, 128))
    np.testing.assert_array_equal(shift(image, right, down, (128.0, 128, 128)), expected)


def test_planes_are_a_copy_that_needs_no_transposition() -> None:
    from ssod.data.pixels import planes_of

    image = photo("scene")
    image.flags.writeable = False
    for look in (image, image[5:40, 3:60], image[:, ::-1], image / np.float32(7)):
        planes = planes_of(look)
        np.testing.assert_array_equal(planes, look)
        assert planes.transpose(2, 0, 1).flags.c_contiguous and planes.flags.writeable
        assert not np.shares_memory(planes, image)
