"""SemiPreprocessor against mmdet's DetDataPreprocessor and float64 homographies."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ssod.errors import UserError

SIZES = {"labeled": [(60, 90), (33, 31)], "weak": [(50, 40), (64, 64)], "strong": [(100, 20), (64, 65)]}
PIXELS = dict(
    mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True, pad_size_divisor=32
)


def homography(seed: int) -> np.ndarray:
    """Scale, flip, turn and shift, as a pipeline composes them."""
    rng = np.random.default_rng(seed)
    c, s = np.cos(rng.uniform(-1, 1)), np.sin(rng.uniform(-1, 1))
    return np.array([[c, -s, rng.uniform(-900, 900)], [s, c, 700.5], [0, 0, 1]]) * [[-1.7], [1.3], [1.0]]


def sample(image: Tensor, seed: int, labeled: bool, scored: bool = False, wrapped: bool = True) -> Any:
    from mmdet.structures import DetDataSample
    from mmdet.structures.bbox import HorizontalBoxes
    from mmengine.structures import InstanceData

    made = DetDataSample()
    shape = tuple(image.shape[1:])
    made.set_metainfo(dict(img_shape=shape, ori_shape=shape, homography_matrix=homography(seed)))
    made.gt_instances = InstanceData()  # PackDetInputs leaves an empty one where nothing is annotated
    if labeled or scored:
        boxes = torch.rand(seed % 3, 4, generator=torch.Generator().manual_seed(seed)) * 10
        boxes[:, 2:] += 12
        fields = dict(bboxes=HorizontalBoxes(boxes) if wrapped else boxes, labels=torch.arange(len(boxes)))
        if scored:
            fields["scores"] = 0.9 - 0.1 * torch.arange(len(boxes))
        made.gt_instances = InstanceData(**fields)
    return made


def loaded(names: tuple[str, ...] = ("labeled", "weak", "strong"), **options: Any) -> dict[str, Any]:
    """What `collate_views` hands over."""
    data: dict[str, Any] = {}
    for index, name in enumerate(names):
        generator = torch.Generator().manual_seed(index)
        images = [
            torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator) for size in SIZES[name]
        ]
        marks = dict(labeled=name == "labeled", scored=options.get("scored", False) and name == "strong")
        data[name] = dict(
            inputs=images,
            data_samples=[
                sample(image, 10 * index + row + 1, wrapped=options.get("wrapped", True), **marks)
                for row, image in enumerate(images)
            ],
        )
    return data


def build(**changes: Any) -> Any:
    from ssod.models.preprocessor import SemiPreprocessor

    return SemiPreprocessor(**PIXELS | changes)


@pytest.mark.parametrize("change", [{}, dict(bgr_to_rgb=False), dict(pad_size_divisor=16)], ids=str)
def test_pixels_and_sizes_are_mmdets(registered: None, change: dict[str, Any]) -> None:
    from mmdet.models.data_preprocessors import DetDataPreprocessor

    data, theirs = loaded(), DetDataPreprocessor(**PIXELS | change)
    batch = build(**change)(data, training=True)["inputs"]
    for name in ("labeled", "weak", "strong"):
        view = getattr(batch, name)
        expected = theirs(loaded()[name], training=True)
        height, width = expected["inputs"].shape[2:]
        torch.testing.assert_close(view.images[:, :, :height, :width], expected["inputs"])
        assert not view.images[:, :, height:].any() and not view.images[..., width:].any()
        assert view.size.tolist() == [list(size) for size in SIZES[name]]
        assert view.padded.tolist() == [list(each.pad_shape) for each in expected["data_samples"]]


def test_a_batch_of_floats_stays_as_it_is(registered: None) -> None:
    """As PhotoMetricDistortion leaves them: pictures show the batch afterwards."""
    from ssod.core.image_stack import ImageStack

    pixels = torch.full((2, 3, 64, 64), 100.0)
    data = {"labeled": {**loaded()["labeled"], "inputs": ImageStack(pixels, [(64, 64), (64, 64)])}}
    preprocessor = build(bgr_to_rgb=False)
    first, second = (preprocessor(data, training=True)["inputs"].labeled.images for _ in range(2))
    assert (pixels == 100).all() and torch.equal(first, second) and (first != 100).all()


def test_the_student_sees_one_batch(registered: None) -> None:
    """Labeled (60, 90) and strong (100, 65) share 128 x 96; the teacher's 64 x 64 stay its own."""
    batch = build()(loaded(), training=True)["inputs"]
    assert batch.labeled.images.shape == batch.strong.images.shape == (2, 3, 128, 96)
    assert batch.weak.images.shape == (2, 3, 64, 64)


@pytest.mark.parametrize("given", ["list", "stack", "larger stack"])
@pytest.mark.parametrize("change", [{}, dict(bgr_to_rgb=False)], ids=str)
def test_pixels_are_those_of_each_image_alone_to_the_bit(
    registered: None, given: str, change: dict[str, Any]
) -> None:
    """(pixels - mean) / std image by image, and zeros, not minus zeros, beside them."""
    from ssod.core.image_stack import ImageStack

    data, preprocessor = loaded(), build(**change)
    if given != "list":
        for view in data.values():
            size = (110, 120) if given == "larger stack" else None
            view["inputs"] = ImageStack.of(view["inputs"], size)
    batch = preprocessor(data, training=True)["inputs"]
    for name in ("labeled", "weak", "strong"):
        found = getattr(batch, name).images
        expected = torch.zeros_like(found)
        for row, image in zip(expected, loaded()[name]["inputs"], strict=True):
            pixels = image.float() if change else image.float().flip(0)
            row[:, : image.shape[1], : image.shape[2]] = (pixels - preprocessor.mean) / preprocessor.std
        assert torch.equal(found.view(torch.int32), expected.view(torch.int32))


def test_each_view_is_moved_once_as_bytes(registered: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the number of images; and nothing waits for a copy."""
    moved, to = [], Tensor.to

    def remember(tensor: Tensor, *args: Any, **options: Any) -> Tensor:
        if torch.device("cpu") in args:
            moved.append((tensor.dtype, tensor.numel(), options.get("non_blocking", False)))
        return to(tensor, *args, **options)

    preprocessor = build()
    monkeypatch.setattr(Tensor, "to", remember)
    preprocessor(loaded(), training=True)
    assert all(non_blocking for *_, non_blocking in moved)
    sizes = {name: [max(side) for side in zip(*SIZES[name], strict=True)] for name in SIZES}
    pixels = sorted(2 * 3 * height * width for height, width in sizes.values())
    assert sorted(count for dtype, count, _ in moved if dtype == torch.uint8) == pixels
    assert max(count for dtype, count, _ in moved if dtype != torch.uint8) < 100  # no pixel as a float


@pytest.mark.parametrize("wrapped", [True, False], ids=["HorizontalBoxes", "tensors"])
def test_truth_is_the_annotations(registered: None, wrapped: bool) -> None:
    data = loaded(wrapped=wrapped)
    truth = build()(data, training=True)["inputs"].truth
    assert truth.valid.tolist() == [[True, False], [True, True]]
    for image, annotated in enumerate(data["labeled"]["data_samples"]):
        boxes = annotated.gt_instances.bboxes
        assert truth.boxes[image, truth.valid[image]].equal(boxes.tensor if wrapped else boxes)
        assert truth.classes[image, truth.valid[image]].equal(annotated.gt_instances.labels)
    assert truth.scores[truth.valid].eq(1).all()


def test_homographies_are_composed_in_double_precision(registered: None) -> None:
    data = loaded()
    batch = build()(data, training=True)["inputs"]
    assert batch.weak_to_strong.dtype == batch.strong_to_weak.dtype == torch.float32
    for image in range(2):
        weak, strong = (data[name]["data_samples"][image].homography_matrix for name in ("weak", "strong"))
        there, back = strong @ np.linalg.inv(weak), weak @ np.linalg.inv(strong)
        # a float64 composition rounded once: half a unit in the last place of float32, relatively
        np.testing.assert_allclose(batch.weak_to_strong[image].numpy(), there, rtol=1e-7, atol=1e-6)
        np.testing.assert_allclose(batch.strong_to_weak[image].numpy(), back, rtol=1e-7, atol=1e-6)
        corner = np.array([100.0, 50.0, 1.0])
        np.testing.assert_allclose(there @ (weak @ corner), strong @ corner)


def test_offline_labels_are_those_with_scores(registered: None) -> None:
    assert build()(loaded(), training=True)["inputs"].strong_labels is None
    data = loaded(scored=True)
    labels = build()(data, training=True)["inputs"].strong_labels
    for image, annotated in enumerate(data["strong"]["data_samples"]):
        valid = labels.valid[image]
        assert labels.boxes[image, valid].equal(annotated.gt_instances.bboxes.tensor)
        assert labels.scores[image, valid].equal(annotated.gt_instances.scores)
    assert labels.valid.any()


def test_a_supervised_batch_has_no_unlabeled_part(registered: None) -> None:
    found = build()(loaded(("labeled",)), training=True)
    assert found["data_samples"] is None
    batch = found["inputs"]
    assert batch.labeled.images.shape == (2, 3, 64, 96)
    names = ("weak", "strong", "weak_to_strong", "strong_to_weak", "strong_labels")
    assert [getattr(batch, name) for name in names] == [None] * 5


def test_validation_is_mmdets(registered: None) -> None:
    from mmdet.models.data_preprocessors import DetDataPreprocessor

    ours, theirs = build()(loaded()["labeled"]), DetDataPreprocessor(**PIXELS)(loaded()["labeled"])
    assert ours["inputs"].equal(theirs["inputs"])
    for one, other in zip(ours["data_samples"], theirs["data_samples"], strict=True):
        assert one.pad_shape == other.pad_shape and one.batch_input_shape == other.batch_input_shape


# ---------------------------------------------------------------- few sizes, for torch.compile


def batch_of(shape: tuple[int, int]) -> dict[str, Any]:
    """Views of one size."""
    data = loaded()
    for view in data.values():
        view["inputs"] = [torch.full((3, *shape), 7, dtype=torch.uint8) for _ in view["inputs"]]
    return data


@pytest.mark.parametrize(
    ("shape", "padded", "extent"),
    [
        ((60, 90), (96, 128), (64, 96)),  # lying
        ((90, 60), (128, 96), (96, 64)),  # standing
        ((96, 128), (96, 128), None),  # as large as that
    ],
    ids=str,
)
def test_every_batch_has_one_of_two_sizes(
    registered: None, shape: tuple[int, int], padded: tuple[int, int], extent: tuple[int, int] | None
) -> None:
    preprocessor = build(pad_to=(120, 90))  # rounded up to 128 and 96
    batch, own = (each(batch_of(shape))["inputs"] for each in (preprocessor, build()))
    for name in ("labeled", "weak", "strong"):
        view, before = getattr(batch, name), getattr(own, name)
        height, width = before.images.shape[2:]
        assert tuple(view.images.shape[2:]) == padded and view.extent == extent and before.extent is None
        assert view.images[..., :height, :width].equal(before.images)
        assert not view.images[..., height:, :].any() and not view.images[..., width:].any()
        assert view.size.equal(before.size) and view.padded.equal(before.padded)
    assert preprocessor.num_misfits == 0


def test_a_batch_that_does_not_fit_keeps_its_size(registered: None) -> None:
    preprocessor = build(pad_to=(128, 96))
    with pytest.warns(UserWarning, match=r"height x width 160 x 64 px does not fit into pad_to=\(128, 96\)"):
        batch = preprocessor(batch_of((140, 60)))["inputs"]
    assert batch.weak.images.shape[2:] == batch.strong.images.shape[2:] == (160, 64)
    assert batch.weak.extent is None and preprocessor.num_misfits == 2  # teacher's and student's
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # once is enough
        preprocessor(batch_of((96, 128)))
        assert preprocessor.num_misfits == 2
        preprocessor(batch_of((97, 128)))
    assert preprocessor.num_misfits == 4


@pytest.mark.parametrize("sides", [(96, 128), (128,), (0, 0)], ids=str)
def test_sides_to_pad_to_that_make_no_sense(registered: None, sides: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="longer side"):
        build(pad_to=sides)
