"""The views: pixels against homographies, one decoded image for two views, options that act."""

import re
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
from ssod.data.steps import draw_one
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
    assert draw_one(pipelines.COLOR_OPS)["aug_space"] == peer["color_space"]
    assert draw_one(pipelines.GEOMETRIC_OPS)["aug_space"] == peer["geometric"]
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

    probe.homography = "still"  # type: ignore[attr-defined]
    Compose(pipelines.two_views([probe], [probe]))(dict(img_path=path, img_id=1))
    assert len(seen) == 1 and len(branches) == 2
    assert all(np.shares_memory(branch, seen[0]) for branch in branches)


class Uncopied(np.ndarray):
    """An image that refuses to be copied."""

    def copy(self, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("the image is copied")

    __copy__ = __deepcopy__ = copy  # type: ignore[assignment]


def test_no_view_copies_the_decoded_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a resize in both views, as published, nothing needs a copy of the original."""
    from ssod.data import transforms

    image = noise(120, 160).view(Uncopied)
    reads: list[str] = []
    monkeypatch.setattr(transforms, "read_image", lambda path: reads.append(path) or image)
    scale = [(100, 60), (100, 80)]
    run = Compose(pipelines.two_views(pipelines.weak(scale), pipelines.strong(scale)))
    for seed in range(20):
        np.random.seed(seed)
        item = run(dict(img_path="a.jpg", img_id=1))
        assert not any(np.shares_memory(view["inputs"].numpy(), image) for view in item.values())
    assert reads == ["a.jpg"] * 20 and not image.flags.writeable


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
        (pipelines.strong, dict(space="stac"), "BoxAffine"),
        (pipelines.strong, dict(jitter=(0.1, 2.0), scale=(64, 64)), "ratio_range"),
        (pipelines.strong, dict(extra=[dict(type="Perspective")]), "Perspective"),
        (pipelines.labeled, dict(jitter=(0.1, 2.0), scale=(64, 64)), "ratio_range"),
        (pipelines.labeled, dict(extra=[dict(type="Perspective")]), "Perspective"),
        (pipelines.labeled, dict(same_scale=True), "BatchResize"),
        (pipelines.weak, dict(same_scale=True), "BatchResize"),
        (pipelines.strong, dict(same_scale=True), "BatchResize"),
        (pipelines.labeled, dict(reduced_decoding=True), "ResizeDrawn"),
        (pipelines.test, dict(scale=None), "Resize"),
        (pipelines.test, dict(reduced_decoding=True), "ResizeDrawn"),
    ],
)
def test_every_option_changes_the_pipeline(make: Any, option: Any, step: str) -> None:
    assert str(make(**option)).count(step) != str(make()).count(step)


def test_an_unknown_space_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"strong\(space='randaug'\): no such space; there are soft_teacher, stac"
    ):
        pipelines.strong(space="randaug")


@pytest.mark.parametrize(
    "options", [dict(), dict(scale=None), dict(scale=[(9, 9), (8, 8)]), dict(scale=(9, 9), jitter=(0, 2))]
)
def test_jitter_without_one_size_is_refused(options: Any) -> None:
    with pytest.raises(UserError, match="large-scale jitter needs a range of factors and one size"):
        pipelines.strong(**{"jitter": (0.1, 2.0), **options})


@pytest.mark.parametrize("options", [dict(scale=None), dict(scale=(9, 9)), dict(scale=(9, 9), jitter=(1, 2))])
def test_a_scale_that_is_not_drawn_is_not_shared(options: Any) -> None:
    with pytest.raises(UserError, match="no scale is drawn that a batch could share"):
        pipelines.labeled(same_scale=True, **options)


def test_large_scale_jitter_has_one_size_and_the_whole_range() -> None:
    """Factors seen in the homography: of the size that fits the image into 120 x 120, here 1.5."""
    np.random.seed(0)
    run = Compose(pipelines.strong(scale=(120, 120), jitter=(0.1, 2.0), color=False, geometric=False)[:-1])
    results = [run(loaded(noise())) for _ in range(200)]
    assert {result["img"].shape for result in results} == {(120, 120, 3)}
    assert {result["img_shape"] for result in results} == {(120, 120)}
    factors = np.array([abs(result["homography_matrix"][0, 0]) / 1.5 for result in results])
    assert factors.min() < 0.2 and factors.max() > 1.9 and 0.9 < np.median(factors) < 1.2
    shifts = {tuple(result["homography_matrix"][:2, 2]) for result in results}
    assert len(shifts) > 50, "crops begin anywhere"


def test_labeled_images_that_lose_their_boxes_to_a_crop_stay(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), noise(200, 200))
    record = dict(
        img_path=str(path), img_id=1, instances=[dict(bbox=[20, 20, 70, 70], bbox_label=0, ignore_flag=0)]
    )
    run = Compose(pipelines.labeled(scale=(64, 64), jitter=(2.0, 2.0), color=False))
    np.random.seed(1)
    items = [run({**record}) for _ in range(20)]
    counts = {len(item["labeled"]["data_samples"].gt_instances) for item in items}
    assert counts == {0, 1}


def motions(run: Any, size: tuple[int, int], count: int = 400) -> list[np.ndarray]:
    """The homographies of views of a blank image, about its centre."""
    np.random.seed(0)
    centre = np.array([[1, 0, size[1] / 2], [0, 1, size[0] / 2], [0, 0, 1]])
    blank = np.zeros((*size, 3), np.uint8)
    drawn = [run(loaded(blank))["homography_matrix"] for _ in range(count)]
    return [np.linalg.inv(centre) @ each @ centre for each in drawn]


def test_the_space_of_stac_moves_as_published() -> None:
    """Half not at all (no box is known), the rest equally shifts in x, in y, turns and shears."""
    size = (100, 200)
    run = Compose(pipelines.strong(None, flip_prob=0.0, color=False, erase=False, space="stac")[:-1])
    kinds = {"none": 0, "x": 0, "y": 0, "turn": 0, "shear": 0}
    for matrix in motions(run, size):
        (a, b, x), (c, d, y) = matrix[:2]
        if np.allclose(matrix, np.eye(3), atol=1e-3):
            kinds["none"] += 1
        elif np.allclose(matrix[:2, :2], np.eye(2), atol=1e-4):
            kinds["x" if abs(x) > abs(y) else "y"] += 1
            assert abs(x) <= 20.5 and abs(y) <= 10.5 and min(abs(x), abs(y)) < 0.01
        elif np.allclose((a, b), (d, -c), atol=1e-3) and abs(np.hypot(a, c) - 1) < 1e-4:
            kinds["turn"] += 1
            assert abs(np.degrees(np.arctan2(c, a))) <= 30.1
        else:
            kinds["shear"] += 1
            assert np.allclose((a, d), 1, atol=1e-3)
            assert np.degrees(np.arctan(np.abs((b, c)))).max() <= 30.1
        # About the centre, to within a pixel.
        if abs(a - 1) + abs(b) + abs(c) + abs(d - 1) > 1e-3:
            assert abs(x) < 1.5 and abs(y) < 1.5
    assert kinds["none"] == pytest.approx(200, abs=45)
    for kind in ("x", "y", "turn", "shear"):
        assert kinds[kind] == pytest.approx(50, abs=25), kinds


def test_the_colours_of_stac_are_the_same_nine_without_the_extremes() -> None:
    names = [op if isinstance(op, str) else op["type"] for op in pipelines.STAC_COLOR_OPS]
    assert sorted(names) == sorted(pipelines.COLOR_OPS)
    from ssod.registry import TRANSFORMS

    image = cv2.resize(np.random.default_rng(0).integers(0, 255, (9, 9, 3), dtype=np.uint8), (90, 90))
    np.random.seed(0)
    for op in pipelines.STAC_COLOR_OPS:
        run = TRANSFORMS.build(dict(type=op) if isinstance(op, str) else dict(op))
        assert min(run(loaded(image.copy()))["img"].std() for _ in range(30)) > 5, (
            "something must be left to see"
        )


def test_extra_transforms_run_before_patches_are_erased_and_boxes_follow() -> None:
    steps = [step["type"] for step in pipelines.strong(extra=[dict(type="Affine")])]
    assert steps.index("RandomOrder") < steps.index("TrackedAlbumentations") < steps.index("RandomErasing")
    still = dict(scale=None, flip_prob=0.0, color=False, geometric=False)
    mirror = [dict(type="HorizontalFlip", p=1)]
    item = views(noise(), pipelines.weak(None, 0.0), pipelines.strong(**still, erase=False, extra=mirror))
    assert torch.equal(item["strong"]["inputs"], item["weak"]["inputs"].flip(-1))
    matrix = item["strong"]["data_samples"].homography_matrix
    np.testing.assert_allclose(matrix, [[-1, 0, 80], [0, 1, 0], [0, 0, 1]], atol=1e-6)


@pytest.mark.parametrize("name", ["ElasticTransform", "GridDistortion", "OpticalDistortion"])
def test_what_bends_is_refused_by_name_when_the_view_is_built(name: str) -> None:
    with pytest.raises(UserError, match=f"albumentations' {name} moves pixels in a way that no homography"):
        Compose(pipelines.two_views(pipelines.weak(), pipelines.strong(extra=[dict(type=name)])))


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


def test_the_snippets_of_the_page_on_views_run() -> None:
    page = (Path(__file__).parents[2] / "docs/views.md").read_text(encoding="utf-8")
    snippets = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(snippets) == 2
    names: dict[str, Any] = {}
    for snippet in snippets:
        exec(snippet, names)
    names["pipeline"][1]["strong"].insert(0, names["Sepia"]())
    np.random.seed(0)
    item = Compose(names["pipeline"][1:])(loaded(noise(240, 320)))
    assert item["strong"]["inputs"].shape == (3, 480, 640)


def test_import_is_cheap() -> None:
    code = "import sys, ssod.data.pipelines; print({'torch', 'mmdet', 'cv2'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_collate_groups_by_view() -> None:
    from ssod.data.transforms import collate_views

    def packed(value: int, height: int, width: int) -> dict[str, Any]:
        return dict(inputs=torch.full((3, height, width), value, dtype=torch.uint8), data_samples=value)

    items = [
        dict(labeled=packed(1, 5, 3)),
        dict(weak=packed(2, 2, 9), strong=packed(3, 4, 4)),
        dict(weak=packed(4, 8, 1), strong=packed(5, 1, 6)),
    ]
    batch = collate_views(items)
    assert {name: view["data_samples"] for name, view in batch.items()} == {
        "labeled": [1], "weak": [2, 4], "strong": [3, 5]
    }  # fmt: skip
    shapes = {name: tuple(view["inputs"].pixels.shape) for name, view in batch.items()}
    student = (5, 6)  # labeled and strong are one batch
    assert shapes == {"labeled": (1, 3, *student), "weak": (2, 3, 8, 9), "strong": (2, 3, *student)}
    for item, name, index in [(0, "labeled", 0), (1, "weak", 0), (2, "weak", 1), (2, "strong", 1)]:
        assert torch.equal(batch[name]["inputs"][index], items[item][name]["inputs"])
        padding = batch[name]["inputs"].pixels[index].sum() - items[item][name]["inputs"].sum()
        assert padding == 0
    assert set(collate_views(items[:1])) == {"labeled"}


def test_a_branch_without_a_result_gives_none() -> None:
    def nothing(results: Any) -> None:
        return None

    nothing.homography = "still"  # type: ignore[attr-defined]
    assert views(noise(), [nothing], [dict(type="PackView")]) is None


def test_a_file_that_is_no_image_is_named() -> None:
    with pytest.raises(UserError, match=r"cannot read image nowhere/a\.jpg"):
        Compose(pipelines.two_views([], []))(dict(img_path="nowhere/a.jpg"))
