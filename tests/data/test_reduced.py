"""Reduced decoding against the whole one: the same geometry, nearly the same pixels, a smaller image."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import Compose
from PIL import Image

from ssod.data import pipelines, reduced
from ssod.data.decode import read_image, read_reduced
from ssod.data.draws import seeded
from ssod.data.steps import load_for, resize_to
from ssod.errors import UserError

pytestmark = pytest.mark.usefixtures("registered")
SIZE = (640, 480)  # of the mosaic, width and height


@pytest.fixture(scope="module")
def mosaic(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A JPEG four times as wide and high as its views: photographs side by side, none of them enlarged."""
    paths = sorted((data_root / "coco_open_mini" / "images").glob("*.jpg"))
    images = [image for image in map(read_image, map(str, paths[:40])) if image.shape[:2] == SIZE[::-1]]
    rows = [np.hstack([images[(row * 4 + column) % len(images)] for column in range(4)]) for row in range(4)]
    path = str(tmp_path_factory.mktemp("mosaic") / "large.jpg")
    cv2.imwrite(path, np.vstack(rows), [cv2.IMWRITE_JPEG_QUALITY, 90])
    return path


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Width and height of what OpenCV decodes from now on."""
    seen: list[tuple[int, int]] = []
    decode = cv2.imdecode

    def remember(*args: Any) -> Any:
        image = decode(*args)
        seen.append(image.shape[1::-1])
        return image

    monkeypatch.setattr(cv2, "imdecode", remember)
    return seen


@pytest.mark.parametrize(
    ("size", "scales", "expected"),
    [
        ((4000, 3000), [(1333, 800)], 2),  # 1067 x 800; a quarter would be 1000 x 750
        ((4000, 3000), [(1333, 750)], 4),
        ((4000, 3000), [(1333, 376), (1333, 400)], 4),
        ((4000, 3000), [(1333, 375), (500, 400)], 8),
        ((4000, 3000), [(1333, 375), (1333, 1200)], 2),  # the larger view decides
        ((3000, 4000), [(1333, 375)], 8),
        ((4000, 3000), [(1333, 1501)], 2),  # the long side decides: 1333 x 1000
        ((4000, 3000), [(2001, 2001)], 1),
        ((2000, 1500), [(300, 300)], 4),  # 1500 can't be divided by 8
        ((1999, 1500), [(100, 100)], 1),
        ((640, 480), [(1333, 800)], 1),
        ((640, 480), [(320, 240)], 2),
        ((640, 480), [(321, 241)], 1),
    ],
)
def test_as_small_as_the_largest_view_allows(size: Any, scales: Any, expected: int) -> None:
    assert reduced.reduction(size, scales) == expected


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("times", [1, 2, 4, 8])
def test_a_pixel_is_the_mean_of_those_it_stands_for(tmp_path: Path, orientation: int, times: int) -> None:
    """Against Pillow's whole image, turned and averaged; so no half pixel is lost on the way."""
    coarse = np.random.default_rng(0).integers(0, 255, (9, 12, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.jpg"
    picture = Image.fromarray(cv2.resize(coarse, (192, 128), interpolation=cv2.INTER_CUBIC))
    picture.save(path, quality=95, exif=exif)
    whole = read_image(path)
    sizes: list[Any] = []

    def choose(width: int, height: int) -> int:
        sizes.append((width, height))
        return times

    image, found = read_reduced(path, choose)
    assert found == times and sizes == [whole.shape[1::-1]]
    assert image.shape == (whole.shape[0] // times, whole.shape[1] // times, 3) and image.flags.c_contiguous
    expected = cv2.resize(whole, image.shape[1::-1], interpolation=cv2.INTER_AREA).astype(float)
    assert np.abs(image - expected).mean() < 1.5
    shifted = np.abs(image[:, 1:] - expected[:, :-1]).mean()  # what a shift by one would give
    assert shifted > 4 * np.abs(image - expected).mean()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP"])
def test_other_formats_are_decoded_whole(tmp_path: Path, kind: str) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48)).save(buffer, kind)
    (tmp_path / "a.jpg").write_bytes(buffer.getvalue())
    image, times = read_reduced(tmp_path / "a.jpg", lambda *_: 8)
    assert times == 1 and image.shape == (48, 64, 3)


def two_views(scale: Any, reduce: bool = True, **strong: Any) -> Any:
    return Compose(
        pipelines.two_views(pipelines.weak(scale), pipelines.strong(scale, **strong), reduced_decoding=reduce)
    )


def both(monkeypatch: pytest.MonkeyPatch, run: Any, record: dict[str, Any], seed: int) -> tuple[Any, Any]:
    """What a pipeline makes of a record, and what with the same draws and the whole image decoded."""
    items = []
    for choose in (reduced.reduction, lambda *_: 1):
        monkeypatch.setattr(reduced, "reduction", choose)
        with seeded((seed,)):
            items.append(run(dict(record)))
    monkeypatch.undo()
    return items[0], items[1]


def test_views_keep_their_geometry_and_nearly_their_pixels(
    mosaic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Near in the mean: fine texture is averaged here, where a resize of the whole image samples it."""
    run = two_views([(640, 300), (640, 480)], color=False, erase=False)
    differences = []
    for seed in range(6):
        ours, whole = both(monkeypatch, run, dict(img_path=mosaic, img_id=1), seed)
        for view in ("weak", "strong"):
            a, b = ours[view]["data_samples"], whole[view]["data_samples"]
            assert np.array_equal(a.homography_matrix, b.homography_matrix)
            assert (a.img_shape, a.ori_shape, a.flip, a.scale_factor) == (
                b.img_shape, b.ori_shape, b.flip, b.scale_factor
            )  # fmt: skip
            assert a.ori_shape == (4 * SIZE[1], 4 * SIZE[0])
            pixels = [item[view]["inputs"].float() for item in (ours, whole)]
            differences.append(float((pixels[0] - pixels[1]).abs().mean()))
    # Of 255. 5.6 with OpenCV 4.12; 3.8 of them are the resize's own distance from the averaged image.
    assert 2 < np.mean(differences) < 8


def test_it_is_nearer_to_the_mean_of_the_pixels_than_the_resize_is(mosaic: str) -> None:
    """Of an image four times too large a bilinear resize reads one pixel in four."""
    run = Compose(pipelines.test(scale=SIZE, reduced_decoding=True)[:2])
    plain = Compose(pipelines.test(scale=SIZE)[:2])
    ideal = cv2.resize(read_image(mosaic), SIZE, interpolation=cv2.INTER_AREA).astype(float)
    errors = [np.abs(each(dict(img_path=mosaic))["img"] - ideal).mean() for each in (run, plain)]
    assert errors[0] < 1.0 and errors[1] > 3.0  # 0.53 and 3.78 of 255 with OpenCV 4.12


def test_both_views_share_one_smaller_image(mosaic: str, decoded: list[Any]) -> None:
    """As small as the larger of the two drawn sizes allows, draw by draw."""
    found = set()
    for seed in range(12):
        decoded.clear()
        run = two_views([(2560, 300), (2560, 1300)])
        with seeded((seed,)):
            item = run(dict(img_path=mosaic, img_id=1))
        [(width, _)] = decoded
        larger = max(view["data_samples"].scale_factor[0] for view in item.values())
        assert width / (4 * SIZE[0]) == min(share for share in (1, 1 / 2, 1 / 4, 1 / 8) if share >= larger)
        found.add(width)
    assert len(found) > 1


def test_draws_are_the_same_each_time(mosaic: str) -> None:
    run = two_views([(640, 300), (640, 480)])
    items = []
    for _ in range(2):
        with seeded((5, 7)):
            items.append(run(dict(img_path=mosaic, img_id=1)))
    for view in ("weak", "strong"):
        assert torch.equal(items[0][view]["inputs"], items[1][view]["inputs"])
    sizes = [view["data_samples"].img_shape for view in items[0].values()]
    assert sizes[0] != sizes[1]  # each view has a draw of its own


def test_boxes_of_labeled_images_stay_to_the_bit(
    mosaic: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoded: list[Any]
) -> None:
    boxes = [[100.5, 37.25, 600, 450], [0, 0, 2560, 1920], [1999, 1600, 13, 200]]
    instances = [dict(bbox=[x, y, x + w, y + h], bbox_label=0, ignore_flag=0) for x, y, w, h in boxes]
    run = Compose(pipelines.labeled([(640, 200), (640, 480)], geometric=True, reduced_decoding=True))
    for seed in range(6):
        record = dict(img_path=mosaic, img_id=1, height=1920, width=2560, instances=instances)
        ours, whole = (item["labeled"]["data_samples"] for item in both(monkeypatch, run, record, seed))
        assert torch.equal(ours.gt_instances.bboxes.tensor, whole.gt_instances.bboxes.tensor)
        assert np.array_equal(ours.homography_matrix, whole.homography_matrix)
    assert {width for width, _ in decoded[1::2]} == {2560} and max(decoded[0::2]) < (2560, 1920)


@pytest.mark.parametrize("scale", [(600, 400), [(600, 200), (600, 400)], [(600, 400), (300, 200), (90, 80)]])
def test_the_motion_is_measured(scale: Any, motion_error: Callable[..., float]) -> None:
    """`ResizeDrawn` by itself, as the list of tracked transforms promises."""
    [step] = resize_to(scale)
    draw, resize = reduced.drawing(step), reduced.ResizeDrawn("weak")

    def run(record: dict[str, Any]) -> dict[str, Any]:
        return resize({**record, "drawn_scales": {"weak": draw({})["scale"]}})

    assert motion_error(run) < 0.5


def test_scales_are_drawn_as_by_the_resize_itself() -> None:
    for scale in ((600, 400), [(600, 200), (600, 400)], [(600, 400), (300, 200), (90, 80)]):
        [step] = resize_to(scale)  # type: ignore[arg-type]
        drawn = []
        for run in (reduced.drawing(step), Compose([step])):
            with seeded((3,)):
                drawn.append(run(dict(img=np.zeros((30, 40, 3), np.uint8)))["scale"])
        assert tuple(drawn[0]) == tuple(drawn[1])


def test_offline_labels_take_the_strong_views_draw_alone(mosaic: str) -> None:
    two = pipelines.two_views(pipelines.weak((64, 48)), pipelines.strong((640, 480)), reduced_decoding=True)
    load, resize, *_ = pipelines.offline(two)
    assert load == dict(type="LoadReduced", resizes=dict(strong=resize_to((640, 480))[0]))
    assert resize == dict(type="ResizeDrawn", view="strong")
    assert Compose([load, resize])(dict(img_path=mosaic))["img"].shape == (480, 640, 3)


@pytest.mark.parametrize(
    "make",
    [
        lambda: pipelines.two_views(pipelines.weak(None), pipelines.strong(), reduced_decoding=True),
        lambda: pipelines.two_views(pipelines.weak(), [], reduced_decoding=True),
        lambda: pipelines.labeled(scale=None, reduced_decoding=True),
        lambda: pipelines.test(scale=None, reduced_decoding=True),
    ],
)
def test_a_view_without_a_size_of_its_own_is_refused(make: Any) -> None:
    with pytest.raises(UserError, match="does not begin with a resize"):
        make()


@pytest.mark.parametrize(
    "resize",
    [
        dict(type="Resize", scale=(64, 64)),
        dict(type="Resize", scale=(64, 64), keep_ratio=True, interpolation="nearest"),
    ],
)
def test_a_resize_with_options_of_its_own_is_refused(resize: dict[str, Any]) -> None:
    view = [resize, dict(type="RandomFlip", prob=0.5)]
    with pytest.raises(UserError, match="only a scale and keep_ratio=True go with it"):
        load_for(dict(weak=view), reduced=True)
