"""The fixed batches: stretched views with boxes and homographies that follow, and mmdet's form of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.structures import InstanceData
from reference import benchmark as reference

from ssod.core.image_stack import ImageStack
from ssod.errors import UserError
from ssod.study.benchmark import batches

pytestmark = pytest.mark.usefixtures("registered", "no_collection")


def view(*, boxes: Any) -> dict[str, Any]:
    """One image, 40 px wide and 20 px high, with a box."""
    from mmdet.structures import DetDataSample

    image = torch.zeros(3, 20, 40, dtype=torch.uint8)
    image[:, 5:15, 10:30] = 200
    sample = DetDataSample()
    sample.set_metainfo(
        dict(img_shape=(20, 40), ori_shape=(20, 40), homography_matrix=np.diag([2.0, 2.0, 1.0]))
    )
    sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([7]))
    return {"inputs": ImageStack.of([image]), "data_samples": [sample]}


def test_a_stretched_image_its_box_and_its_homography_agree() -> None:
    stretched = view(boxes=torch.tensor([[10.0, 5.0, 30.0, 15.0]]))
    batches.stretch(stretched, (80, 60))
    [image], [sample] = stretched["inputs"], stretched["data_samples"]
    assert image.shape == (3, 60, 80)
    assert image.dtype == torch.uint8
    rows, columns = (image[0] > 100).nonzero(as_tuple=True)
    seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert [int(each) for each in seen] == [20, 15, 60, 45] == sample.gt_instances.bboxes[0].tolist()
    assert sample.img_shape == (60, 80)
    np.testing.assert_allclose(sample.homography_matrix, np.diag([4.0, 6.0, 1.0]))


def test_mmdets_boxes_are_stretched_too() -> None:
    from mmdet.structures.bbox import HorizontalBoxes

    stretched = view(boxes=HorizontalBoxes(torch.tensor([[10.0, 5.0, 30.0, 15.0]])))
    batches.stretch(stretched, (80, 60))
    assert stretched["data_samples"][0].gt_instances.bboxes.tensor.tolist() == [[20.0, 15.0, 60.0, 45.0]]


def test_a_fresh_batch_shares_pixels_and_nothing_else() -> None:
    given = {"labeled": view(boxes=torch.zeros(1, 4))}
    copied = batches.fresh(given)
    assert copied["labeled"]["inputs"] is given["labeled"]["inputs"]
    copied["labeled"]["data_samples"][0].gt_instances.labels[0] = 0
    assert given["labeled"]["data_samples"][0].gt_instances.labels.tolist() == [7]


def test_labels_stay_below_the_number_of_classes() -> None:
    given = {"labeled": view(boxes=torch.zeros(1, 4))}
    batches.limit_classes(given, 3)
    assert given["labeled"]["data_samples"][0].gt_instances.labels.tolist() == [1]


def test_mmdets_branches_have_gaps_where_an_image_has_no_such_view() -> None:
    views = {name: view(boxes=torch.zeros(1, 4)) for name in ("labeled", "weak", "strong")}
    for name in ("weak", "strong"):
        views[name] = {key: [*values] * 2 for key, values in views[name].items()}
        views[name]["data_samples"][0].gt_instances = InstanceData()
    semi = batches.as_mmdet_semi(views)
    given = {name: [each is not None for each in values] for name, values in semi["inputs"].items()}
    assert given["sup"] == [True, False, False]
    assert given["unsup_teacher"] == given["unsup_student"] == [False, True, True]
    samples = [each for values in semi["data_samples"].values() for each in values if each is not None]
    assert {each.homography_matrix.dtype for each in samples} == {np.dtype("float32")}
    assert all("bboxes" in each.gt_instances and "bboxes" in each.ignored_instances for each in samples)


def test_drawn_batches(tmp_path: Path) -> None:
    config = Config(reference.config())
    batches.draw(config, tmp_path / "drawn", (2, 3))
    loaded = batches.load(config, (2, 3), reference.SIZE, None)
    assert loaded.semi is not None
    counts = {name: len(each["inputs"]) for name, each in loaded.semi.items()}
    assert (loaded.num_images, counts) == (5, {"labeled": 2, "weak": 3, "strong": 3})
    shapes = {tuple(image.shape) for each in loaded.semi.values() for image in each["inputs"]}
    assert shapes == {(3, reference.SIZE[1], reference.SIZE[0])}
    again = batches.load(config, (2, 3), reference.SIZE, None)
    assert all(
        torch.equal(a, b)
        for name in loaded.semi
        for a, b in zip(loaded.semi[name]["inputs"], again.semi[name]["inputs"], strict=True)
    )


def test_a_method_with_labels_from_a_file_gets_some(tmp_path: Path) -> None:
    config = Config(reference.config())
    batches.draw(config, tmp_path / "drawn", (1, 2))
    method = type("Offline", (torch.nn.Module,), {"needs_file": True})()
    strong = batches.load(config, (1, 2), reference.SIZE, method).semi["strong"]
    labels = [each.gt_instances for each in strong["data_samples"]]
    assert [(len(each.bboxes), float(each.scores.min()) > 0.9) for each in labels] == [(15, True)] * 2
    limit = torch.tensor([*reference.SIZE] * 2)
    assert all((each.bboxes >= 0).all() and (each.bboxes <= limit).all() for each in labels)


def test_how_many_images_a_batch_has() -> None:
    config = Config(reference.config())
    assert batches.chosen_counts(config, None) == (1, 4)
    assert batches.chosen_counts(config, (2, 2)) == (2, 2)
    config.train_dataloader.dataset = config.train_dataloader.dataset.datasets[0]
    assert batches.chosen_counts(config, (2, 2)) == (4,)
    assert batches.chosen_counts(config, None) == (5,)


def test_a_sampler_without_counts() -> None:
    config = Config(reference.config())
    del config.train_dataloader.sampler["counts"]
    with pytest.raises(UserError, match=r"add --batch 1\+4"):
        batches.chosen_counts(config, None)
