"""The views: pixels against homographies, one decoded image for two views, options that act."""

import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import mmdet
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose

from ssod.data import pipelines
from ssod.errors import UserError

pytestmark = pytest.mark.usefixtures("registered")

MOVING = {
    "resize up": [dict(type="Resize", scale=(1333, 1000), keep_ratio=True)],
    "resize down": [dict(type="Resize", scale=(333, 222), keep_ratio=True)],
    "flip": [dict(type="RandomFlip", prob=1.0)],
    "flip both ways": [dict(type="RandomFlip", prob=1.0, direction="diagonal")],
    **{name: [dict(type=name)] for name in pipelines.GEOMETRIC_OPS},
    **{f"{name} strongest": [dict(type=name, level=10)] for name in pipelines.GEOMETRIC_OPS},
    "weak": pipelines.weak(scale=[(700, 300), (700, 600)])[:-1],
    "strong": pipelines.strong(scale=[(700, 300), (700, 600)], color=False, erase=False)[:-1],
}


def loaded(image: np.ndarray) -> dict[str, Any]:
    """The record that LoadImage leaves."""
    return dict(
        img=image,
        img_id=7,
        img_path="a.png",
        img_shape=image.shape[:2],
        ori_shape=image.shape[:2],
        scale_factor=(1.0, 1.0),
        flip=False,
        flip_direction=None,
        homography_matrix=np.eye(3),
    )


def noise(height: int = 60, width: int = 80) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 120, (height, width, 3), dtype=np.uint8)


def views(image: np.ndarray, weak: Any, strong: Any) -> dict[str, Any]:
    """Both views of an image that is in memory already."""
    return Compose(pipelines.two_views(weak, strong)[1:])(loaded(image))


@pytest.mark.parametrize("name", MOVING)
def test_homography_follows_the_pixels(name: str, motion_error: Callable[..., float]) -> None:
    error = motion_error(Compose(MOVING[name]))
    # mmdet turns about pixel centres but counts boxes from corners: 0.37 px at 30 degrees.
    assert error < 0.5, f"{name}: {error:.3f} px"


def test_homography_is_exact_where_nothing_moved() -> None:
    still = dict(scale=None, flip_prob=0.0)
    item = views(noise(), pipelines.weak(**still), pipelines.strong(**still, geometric=False))
    for view in item.values():
        matrix = view["data_samples"].homography_matrix
        assert matrix.dtype == np.float64 and np.array_equal(matrix, np.eye(3))


def test_spaces_are_those_of_mmdet_soft_teacher() -> None:
    recipe = Path(mmdet.__file__).parent / ".mim/configs/_base_/datasets/semi_coco_detection.py"
    peer = runpy.run_path(str(recipe))
    assert pipelines._one_of(pipelines.COLOR_OPS)["aug_space"] == peer["color_space"]
    assert pipelines._one_of(pipelines.GEOMETRIC_OPS)["aug_space"] == peer["geometric"]
    assert peer["scale"] == pipelines.COCO_SCALE
    ours = [step for step in pipelines.strong() if step["type"] != "CopySharedImage"]
    assert ours[:-1] == [s for s in peer["strong_pipeline"] if s["type"] != "FilterAnnotations"][:-1]


def test_image_is_decoded_once_and_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "a.png")
    cv2.imwrite(path, noise())
    decode, seen = cv2.imdecode, []

    def remember(*args: Any) -> Any:
        seen.append(decode(*args))
        return seen[-1]

    monkeypatch.setattr(cv2, "imdecode", remember)
    branches: list[np.ndarray] = []

    def probe(results: dict[str, Any]) -> dict[str, Any]:
        branches.append(results["img"])
        return results

    Compose(pipelines.two_views([probe], [probe]))(dict(img_path=path, img_id=1))
    assert len(seen) == 1 and len(branches) == 2
    assert all(np.shares_memory(branch, seen[0]) for branch in branches)


def test_writing_into_the_shared_image_fails_loudly() -> None:
    in_place = [dict(type="RandomErasing", n_patches=2, ratio=0.2)]
    with pytest.raises(ValueError, match="read-only"):
        views(noise(), [], in_place)


def test_erased_patches_stay_in_the_strong_view() -> None:
    image = noise()
    original = torch.from_numpy(image.copy()).permute(2, 0, 1)
    still = dict(scale=None, flip_prob=0.0)
    for seed in range(10):
        np.random.seed(seed)
        strong = pipelines.strong(**still, color=False, geometric=False)
        item = views(image, pipelines.weak(**still), strong)
        assert torch.equal(item["weak"]["inputs"], original)
        changed = (item["strong"]["inputs"] != original).any(0)
        assert (item["strong"]["inputs"][:, changed] == 128).all()
        assert 0 <= changed.float().mean() <= 5 * 0.2**2
    assert changed.any()


@pytest.mark.parametrize("name", pipelines.COLOR_OPS)
def test_colour_operations_neither_move_nor_write_in_place(name: str) -> None:
    image = noise()
    before = image.copy()
    steps = [dict(type=name), dict(type="PackView")]
    item = views(image, steps, steps)
    assert np.array_equal(image, before)
    assert np.array_equal(item["weak"]["data_samples"].homography_matrix, np.eye(3))


def test_boxes_of_one_view_do_not_move_with_the_other() -> None:
    from mmdet.structures.bbox import HorizontalBoxes

    record = loaded(noise(60, 80))
    record.update(gt_bboxes=HorizontalBoxes([[10.0, 5, 30, 25]]), gt_bboxes_labels=np.array([2]))
    flip = [dict(type="RandomFlip", prob=1.0), dict(type="PackView")]
    item = Compose([dict(type="TwoViews", weak=[dict(type="PackView")], strong=flip)])(record)
    weak, strong = (item[name]["data_samples"].gt_instances.bboxes.tensor for name in item)
    assert weak.tolist() == [[10, 5, 30, 25]] and strong.tolist() == [[50, 5, 70, 25]]


@pytest.mark.parametrize(
    ("scale", "allowed"),
    [
        pytest.param(None, {(60, 80)}, id="none keeps the size"),
        pytest.param((160, 120), {(120, 160)}, id="one is fixed"),
        pytest.param([(160, 120)], {(120, 160)}, id="a list of one is fixed"),
        pytest.param([(160, 90), (160, 93)], {(h, w) for h, w in
                     ((90, 120), (91, 121), (92, 123), (93, 124))}, id="two are a range"),
        pytest.param([(80, 60), (160, 120), (40, 30)], {(60, 80), (120, 160), (30, 40)},
                     id="three are a choice"),
    ],
)  # fmt: skip
def test_scale_means_what_its_kind_says(scale: Any, allowed: set[tuple[int, int]]) -> None:
    run = Compose(pipelines.weak(scale=scale)[:-1])
    np.random.seed(0)
    seen = {tuple(run(loaded(noise()))["img_shape"]) for _ in range(40)}
    assert seen == allowed


@pytest.mark.parametrize(
    ("make", "option", "step"),
    [
        (pipelines.labeled, dict(color=False), "RandomOrder"),
        (pipelines.labeled, dict(geometric=True), "RandAugment"),
        (pipelines.labeled, dict(erase=True), "RandomErasing"),
        (pipelines.labeled, dict(flip_prob=0.1), "'prob': 0.1"),
        (pipelines.weak, dict(scale=None), "RandomResize"),
        (pipelines.weak, dict(flip_prob=0.1), "'prob': 0.1"),
        (pipelines.strong, dict(color=False), "Posterize"),
        (pipelines.strong, dict(geometric=False), "ShearX"),
        (pipelines.strong, dict(erase=False), "RandomErasing"),
        (pipelines.test, dict(scale=None), "Resize"),
    ],
)
def test_every_option_changes_the_pipeline(make: Any, option: Any, step: str) -> None:
    assert str(make(**option)).count(step) != str(make()).count(step)


def test_a_seed_repeats_both_views() -> None:
    weak, strong = pipelines.weak(scale=[(90, 50), (90, 90)]), pipelines.strong(scale=(90, 90))

    def draw(seed: int) -> list[torch.Tensor]:
        np.random.seed(seed)
        return [view["inputs"] for view in views(noise(), weak, strong).values()]

    first, again = draw(3), draw(3)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert {tuple(draw(seed)[0].shape) for seed in range(5)} != {tuple(first[0].shape)}


def test_configs_can_call_them(tmp_path: Path) -> None:
    config = tmp_path / "c.py"
    config.write_text(
        "_base_ = []\n"
        "from ssod.data.pipelines import strong, two_views, weak\n"
        "pipeline = two_views(weak(scale=(64, 64)), strong(scale=(64, 64), color=False))\n"
    )
    read = Config.fromfile(str(config))
    assert set(read) == {"pipeline"}
    dumped = Config.fromstring(read.pretty_text, ".py")
    assert dumped.pipeline == read.pipeline
    item = Compose(dumped.pipeline[1:])(loaded(noise()))
    assert item["strong"]["inputs"].shape == (3, 48, 64)


def test_import_is_cheap() -> None:
    code = "import sys, ssod.data.pipelines; print({'torch', 'mmdet', 'cv2'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_collate_groups_by_view() -> None:
    from ssod.data.transforms import collate_views

    def packed(name: str) -> dict[str, str]:
        return dict(inputs=f"image {name}", data_samples=f"sample {name}")

    items = [dict(labeled=packed("l")), *(dict(weak=packed(f"w{i}"), strong=packed(f"s{i}"))
                                          for i in range(2))]  # fmt: skip
    batch = collate_views(items)
    assert batch == {
        "labeled": {"inputs": ["image l"], "data_samples": ["sample l"]},
        "weak": {"inputs": ["image w0", "image w1"], "data_samples": ["sample w0", "sample w1"]},
        "strong": {"inputs": ["image s0", "image s1"], "data_samples": ["sample s0", "sample s1"]},
    }
    assert set(collate_views(items[:1])) == {"labeled"}


def test_a_branch_without_a_result_gives_none() -> None:
    assert views(noise(), [lambda results: None], [dict(type="PackView")]) is None


def test_a_file_that_is_no_image_is_named() -> None:
    with pytest.raises(UserError, match=r"cannot read image nowhere/a\.jpg"):
        Compose(pipelines.two_views([], []))(dict(img_path="nowhere/a.jpg"))
