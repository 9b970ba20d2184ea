"""Transforms that may be in a view: each listed one against the pixels, all others refused by name."""

import importlib
from collections.abc import Callable
from typing import Any

import cv2
import mmdet.datasets.transforms  # noqa: F401  registers mmdet's
import numpy as np
import pytest
from mmengine.dataset import Compose

from ssod.data import pipelines, tracking
from ssod.data.tracking import GROUPS, INSTEAD, STILL, TRACKED, check_homography
from ssod.errors import UserError

pytestmark = pytest.mark.usefixtures("registered")

# What each listed transform needs to be built, and to do something.
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "Resize": [dict(scale=(600, 400)), dict(scale=(600, 400), keep_ratio=True), dict(scale_factor=0.7)],
    "FixScaleResize": [dict(scale=(600, 400), keep_ratio=True)],
    "FixShapeResize": [dict(width=600, height=400), dict(width=600, height=400, keep_ratio=False)],
    "RandomFlip": [dict(prob=1.0, direction=d) for d in ("horizontal", "vertical", "diagonal")],
    "RandomCrop": [
        dict(crop_size=(300, 250)),
        dict(crop_size=(0.6, 0.7), crop_type="relative"),
        dict(crop_size=(0.6, 0.7), crop_type="relative_range"),
        dict(crop_size=(250, 300), crop_type="absolute_range"),
    ],
    "TrackedAlbumentations": [dict(transforms=[dict(type="Affine", rotate=(5, 30), p=1)])],
    "PhotoMetricDistortion": [dict(hue_delta=0)],
    "CutOut": [dict(n_holes=1, cutout_shape=(4, 4))],
    "RandomErasing": [dict(n_patches=1, ratio=0.02)],
    "Pad": [dict(size=(600, 500)), dict(size_divisor=64), dict(pad_to_square=True)],
    "FilterAnnotations": [dict(min_gt_bbox_wh=(1, 1))],
    "RandomGrayscale": [dict(prob=1.0, keep_channels=True)],
    "BoxAffine": [dict(transforms=[dict(type="Affine", rotate=(5, 30), p=1)])],
}
# They leave no picture of a spot to look for, or none at all; ResizeDrawn is measured in test_reduced.py.
NOT_MEASURED = {"PackDetInputs", "LoadEmptyAnnotations", "LoadImage", "PackView", "PlaceOfflineLabels"}
NOT_MEASURED |= {"ResizeDrawn"}


def build(name: str, **options: Any) -> Any:
    """A transform by its house and class, past the registries."""
    house, kind = name.split(".")
    places = {
        "mmdet": ["mmdet.datasets.transforms"],
        "mmcv": ["mmcv.transforms"],
        "mmengine": ["mmengine.dataset"],
        "ssod": [f"ssod.data.{name}" for name in ("pixels", "augment", "transforms", "boxwise", "reduced")],
    }
    found = [getattr(importlib.import_module(place), kind, None) for place in places[house]]
    cls = next(each for each in found if each is not None)
    assert tracking._name(cls) == name
    return cls(**options)


def rows(names: Any) -> list[tuple[str, dict[str, Any]]]:
    listed = [(name, options) for name in sorted(names) for options in OPTIONS.get(name.split(".")[1], [{}])]
    return [row for row in listed if row[0].split(".")[1] not in NOT_MEASURED]


@pytest.mark.parametrize(("name", "options"), rows(TRACKED), ids=lambda value: str(value))
def test_what_is_listed_as_tracked_is(name: str, options: Any, motion_error: Callable[..., float]) -> None:
    transform = build(name, **options)
    check_homography("strong", transform)
    assert motion_error(transform) < 0.5


@pytest.mark.parametrize(("name", "options"), rows(STILL), ids=lambda value: str(value))
def test_what_is_listed_as_still_moves_nothing(name: str, options: Any) -> None:
    """Bright spots on grey stay where they are, and so does the homography."""
    transform = build(name, **options)
    check_homography("weak", transform)
    image = np.full((120, 160, 3), 90, np.uint8)
    spots = [(30, 40), (90, 120), (60, 80)]
    for row, column in spots:
        image[row - 2 : row + 3, column - 2 : column + 3] = 250
    seen = 0
    for seed in range(5):
        np.random.seed(seed)
        record = dict(
            img=image.copy(),
            img_shape=(120, 160),
            homography_matrix=np.eye(3),
            gt_bboxes=np.zeros((0, 4), np.float32),
            gt_bboxes_labels=np.zeros(0, int),
            gt_ignore_flags=np.zeros(0, bool),
        )
        if name.endswith("FilterAnnotations"):
            from mmdet.structures.bbox import HorizontalBoxes

            record["gt_bboxes"] = HorizontalBoxes([[1.0, 1, 40, 40]])
            record["gt_bboxes_labels"], record["gt_ignore_flags"] = np.zeros(1, int), np.zeros(1, bool)
        else:
            del record["gt_bboxes"]
        result = transform(record)
        assert np.array_equal(result["homography_matrix"], np.eye(3))
        grey = result["img"].astype(float).mean(axis=2)
        around = np.median(grey[:120, :160])
        for row, column in spots:
            inside = grey[row - 1 : row + 2, column - 1 : column + 2]
            seen += bool(abs(inside - around).min() > 5)
    assert seen >= 8, f"{name}: only {seen} of 15 spots are where they were; patches hide one or two"


def test_every_group_hands_on_to_what_is_in_it() -> None:
    bad = dict(type="MinIoURandomCrop")
    inside: dict[str, dict[str, Any]] = {
        "RandomApply": dict(transforms=[bad]),
        "RandomChoice": dict(transforms=[[dict(type="Resize", scale=(9, 9))], [bad]]),
        "RandomOrder": dict(transforms=[dict(type="Pad", size=(9, 9)), bad]),
        "RandAugment": dict(aug_space=[[bad]], aug_num=1),
        "AutoAugment": dict(policies=[[dict(type="Resize", scale=(9, 9)), bad]]),
    }
    for name, options in inside.items():
        nested = dict(type="RandomApply", transforms=[dict(type=name, **options)])
        with pytest.raises(UserError, match=r"the weak view has mmdet\.MinIoURandomCrop"):
            check_homography("weak", Compose([nested]))
    named = {name.split(".")[1] for name in GROUPS}
    resizing = {"RandomResize", "RandomChoiceResize", "ResizeShortestEdge"}
    assert named == {*inside, *resizing, "Compose", "BatchResize"}


def test_a_resize_for_a_batch_is_as_good_as_its_resize(motion_error: Callable[..., float]) -> None:
    inner = dict(type="RandomResize", scale=[(400, 300), (700, 600)], keep_ratio=True)
    tracked = Compose([dict(type="BatchResize", resize=inner)])
    check_homography("weak", tracked)
    assert motion_error(tracked) < 0.5
    with pytest.raises(UserError, match=r"mmcv\.Resize, .*use mmdet\.Resize"):
        inner = {**inner, "resize_type": "mmcv.Resize"}
        check_homography("weak", Compose([dict(type="BatchResize", resize=inner)]))


@pytest.mark.parametrize("name", ["RandomResize", "RandomChoiceResize", "ResizeShortestEdge"])
def test_a_group_that_resizes_is_as_good_as_its_resize(name: str, motion_error: Callable[..., float]) -> None:
    options: dict[str, Any] = {
        "RandomResize": dict(scale=[(400, 300), (700, 600)], keep_ratio=True),
        "RandomChoiceResize": dict(scales=[(400, 300), (700, 600)], keep_ratio=True),
        "ResizeShortestEdge": dict(scale=300, max_size=600),
    }[name]
    tracked = Compose([dict(type=name, **options)])
    check_homography("weak", tracked)
    assert motion_error(tracked) < 0.5
    # mmcv's own resize leaves the homography alone.
    with pytest.raises(UserError, match=r"mmcv\.Resize, .*use mmdet\.Resize"):
        check_homography("weak", Compose([dict(type=name, **{**options, "resize_type": "mmcv.Resize"})]))


@pytest.mark.parametrize("name", [*INSTEAD, "mmdet.Mosaic", "mmdet.MixUp", "mmdet.CopyPaste"])
def test_the_other_transforms_of_the_base_are_refused_by_name(name: str) -> None:
    house, kind = name.split(".")
    options: dict[str, Any] = {
        "Albu": dict(transforms=[dict(type="HorizontalFlip")]),
        "CenterCrop": dict(crop_size=3),
        "Resize": dict(scale=(3, 3)),
        "RandomFlip": dict(prob=0.5),
        "RandomCenterCropPad": dict(
            crop_size=(9, 9), mean=[0, 0, 0], std=[1, 1, 1], to_rgb=True, test_pad_mode=None
        ),
    }.get(kind, {})
    config = dict(type=name, **options) if house == "mmcv" else dict(type=kind, **options)
    load = [dict(type="LoadImage")]
    dataset = [*load, dict(type="TwoViews", weak=pipelines.weak(), strong=[config, *pipelines.strong()])]
    with pytest.raises(
        UserError, match=rf"the strong view has {name}, .* would land in the wrong place"
    ) as raised:
        Compose(dataset)
    assert "\n" not in str(raised.value)
    if name in INSTEAD:
        assert f"use {INSTEAD[name]}" in str(raised.value)


class Own:
    """A transform of one's own: `motion` (2, 3) for the pixels, `said` for the homography."""

    homography = "tracked"

    def __init__(self, motion: Any, said: Any, prob: float = 1.0) -> None:
        self.motion, self.said, self.prob = (np.array(each, float) for each in (motion, said, prob))

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        if np.random.random() < self.prob:
            height, width = results["img"].shape[:2]
            results["img"] = cv2.warpAffine(results["img"], self.motion[:2], (width, height))
            results["homography_matrix"] = self.said @ results["homography_matrix"]
        return results


MIRROR = [[-1, 0, 127], [0, 1, 0], [0, 0, 1]]  # of pixel centres, at a width of 128
MIRRORED = [[-1, 0, 128], [0, 1, 0], [0, 0, 1]]  # of corners


def test_ones_own_transform_must_say_what_it_does() -> None:
    class Silent(Own):
        homography = None  # type: ignore[assignment]

    def function(results: dict[str, Any]) -> dict[str, Any]:
        return results

    for mine, name in ((Silent(MIRROR, MIRRORED), "Silent"), (function, "function")):
        with pytest.raises(UserError, match=rf"{name}, which does not say whether it moves pixels") as raised:
            check_homography("strong", Compose([mine]))
        assert "homography = 'tracked'" in str(raised.value) and "\n" not in str(raised.value)
    function.homography = "still"  # type: ignore[attr-defined]
    check_homography("strong", Compose([function]))


def test_what_is_said_is_measured() -> None:
    check_homography("strong", Own(MIRROR, MIRRORED))
    check_homography("strong", Own(MIRROR, MIRRORED, prob=0.3))
    state = np.random.get_state()[1].tolist()
    with pytest.raises(UserError, match=r"Own, which says that it tracks .* but moves pixels 64\.0 px away"):
        check_homography("strong", Own(MIRROR, np.eye(3)))
    with pytest.raises(UserError, match="says that it tracks"):
        check_homography("strong", Own(MIRROR, np.eye(3), prob=0.5))
    assert np.random.get_state()[1].tolist() == state


def test_what_cannot_be_measured_is_believed() -> None:
    class Coloured(Own):
        """Changes the values, too, so that the pixels tell nothing."""

        def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
            results["img"] = (255 - results["img"]).astype(np.uint8)
            return super().__call__(results)

    class Demanding(Own):
        def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
            return {**results, "img": results["gt_bboxes"]}

    check_homography("strong", Coloured(MIRROR, MIRRORED))
    check_homography("strong", Demanding(MIRROR, MIRRORED))


def test_all_our_views_pass() -> None:
    for space in pipelines.SPACES:
        check_homography("strong", Compose(pipelines.strong(space=space, extra=[dict(type="Perspective")])))
    jittered = pipelines.strong(scale=(64, 64), jitter=(0.1, 2.0))
    check_homography("strong", Compose(jittered))
    check_homography("weak", Compose(pipelines.weak(scale=[(9, 9), (8, 8), (7, 7)])))
