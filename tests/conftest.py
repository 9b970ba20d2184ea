"""What every test may ask for: the shared data and weights, our registries, a ruler for pixels."""

import gc
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PROJECT = Path(__file__).resolve().parents[1]
# albumentations asks PyPI for its newest version at import; tests need no network.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")


@pytest.fixture(scope="session", autouse=True)
def cache_of_files(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A cache of file sizes of the tests' own, for the commands that they run, too."""
    os.environ["SSOD_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session", autouse=True)
def moderation() -> None:
    """One thread for torch and OpenCV: the tests share small machines."""
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)


@pytest.fixture(autouse=True)
def seeds() -> None:
    """Every test draws the same numbers, whichever tests its worker ran before it."""
    import torch

    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def registered() -> None:
    """Everything of ours and of mmdet's in its registry, "ssod" as the default scope."""
    from ssod.registry import register_all_modules

    register_all_modules()


@pytest.fixture
def no_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody collects garbage by hand: mmengine does for every dataset, for 0.4 s each."""
    monkeypatch.setattr(gc, "collect", lambda *_: 0)


def _shared(variable: str, folder: str) -> Path:
    """The folder that the variable names, else the one beside the project."""
    path = Path(os.environ.get(variable) or PROJECT.parent / "shared" / folder)
    if not path.is_dir():
        reason = f"{path} is missing: set {variable} to the folder with the shared {folder}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return path


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of data sets (bccd, coco_open_mini, ...)."""
    return _shared("SSOD_DATA_ROOT", "datasets")


@pytest.fixture(scope="session")
def weights_root() -> Path:
    """The folder of pretrained weights."""
    return _shared("SSOD_WEIGHTS_ROOT", "weights")


@pytest.fixture(scope="session")
def motion_error() -> Callable[..., float]:
    """Function: how far bright spots end up from where `homography_matrix` says, in view pixels."""
    return _motion_error


def _motion_error(
    run: Callable[[dict[str, Any]], dict[str, Any]],
    size: tuple[int, int] = (360, 500),
    seeds: range = range(6),
    box: bool = False,
) -> float:
    """The largest error over one spot at a time, with (h, w) `size` and one draw for each seed.

    `run` takes a record with `img` and returns one with `img` and `homography_matrix`. With `box`
    the record holds a box centred on the spot, and the distance to the box's centre is measured.
    """
    from mmdet.structures.bbox import HorizontalBoxes

    errors = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        for spot in rng.uniform(0.15, 0.85, (4, 2)) * (size[1], size[0]):
            record = spot_record(size, spot)
            if box:
                record["gt_bboxes"] = HorizontalBoxes([[*(spot - 12), *(spot + 12)]])
            np.random.seed(seed)
            view = run(record)
            x, y, w = view["homography_matrix"] @ (*spot, 1.0)
            expected = np.array((x / w, y / w))
            shape = np.array(view["img"].shape[1::-1])
            # Out of the view, or cut by its border: nothing to compare with.
            if np.any(expected < 45) or np.any(expected > shape - 45):
                continue
            if box:
                corners = view["gt_bboxes"].tensor[0].numpy()
                expected = (corners[:2] + corners[2:]) / 2
            errors.append(float(np.linalg.norm(brightest(view["img"], expected) - expected)))
    assert len(errors) >= 3, "too few spots stayed in view to say anything"
    return max(errors)


def spot_record(size: tuple[int, int], spot: np.ndarray) -> dict[str, Any]:
    """A loaded record: one bright Gaussian spot on black, its centre in corner coordinates."""
    height, width = size
    down, right = np.mgrid[:height, :width] + 0.5
    distance = (right - spot[0]) ** 2 + (down - spot[1]) ** 2
    image = np.repeat((255 * np.exp(-distance / (2 * 6.0**2)))[..., None], 3, axis=2)
    return dict(
        img=image.round().astype(np.uint8),
        img_shape=size,
        ori_shape=size,
        scale_factor=(1.0, 1.0),
        flip=False,
        flip_direction=None,
        homography_matrix=np.eye(3),
    )


def brightest(image: np.ndarray, expected: np.ndarray, reach: int = 40) -> np.ndarray:
    """The (x, y) centre of the pixels brighter than any border filling (128), weighted.

    Looks near the expected place first, for a reflecting border shows a spot twice.
    """
    weight = np.clip(image[..., 0].astype(float) - 140, 0, None)
    down, right = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5
    near = weight * (np.abs(right - expected[0]) < reach) * (np.abs(down - expected[1]) < reach)
    weight = near if near.any() else weight
    return np.array(((right * weight).sum(), (down * weight).sum())) / weight.sum()
